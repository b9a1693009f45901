"""``dr quarantine`` counts the rows that were put aside, shows some, and says what mends each reason; no JVM is started."""

import json
import time
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from pipelines.cli.main import main
from pipelines.stages.ingest.reasons import REASONS

DAY_1, DAY_2 = "2024-01-01T00:00:00Z/2024-01-02T00:00:00Z", "2024-01-02T00:00:00Z/2024-01-03T00:00:00Z"


@pytest.fixture
def workdir(tmp_path: Path) -> str:
    """A work folder after two ingested days: 7 rows of the log and one of the catalogue in quarantine."""
    rows = [
        ("unparsable_time", {"user": f"u{at}", "time": "yester\"day's"}, "file:///logs/day%201.csv", DAY_1)
        for at in range(4)
    ]
    rows += [("null_user", {"user": None, "time": "1"}, "file:///logs/day%201.csv", DAY_1)] * 2
    rows += [("unparsable_time", {"user": "u9", "time": "x" * 900}, "s3://logs/day 2.csv", DAY_2)]
    rows += [("catalogue_null_item", {"title": "café"}, "file:///items.csv", DAY_2)]
    names = ("reason", "row", "source_file", "source_interval", "user")
    text = [(reason, json.dumps(row), file, label, None) for reason, row, file, label in rows]
    columns = [pa.array(values, pa.string()) for values in zip(*text, strict=True)]
    write_deltalake(str(tmp_path / "tables" / "quarantine"), pa.table(dict(zip(names, columns, strict=True))))
    ledger = [
        {"source_interval": DAY_1, "rows_in": 100, "kept": 90, "quarantined": 6, "filtered": 4,
         "reasons": json.dumps({"unparsable_time": 4, "null_user": 2, "not_positive": 4})},
        {"source_interval": DAY_2, "rows_in": 10, "kept": 9, "quarantined": 1, "filtered": 0,
         "reasons": json.dumps({"unparsable_time": 1})},
    ]  # fmt: skip
    write_deltalake(str(tmp_path / "tables" / "intervals"), pa.Table.from_pylist(ledger))
    return str(tmp_path)


def answer(capfd: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main(["quarantine", *words, "--json"]) == 0
    return dict(json.loads(capfd.readouterr().out))


def test_reasons_are_counted_with_samples_and_their_remedy(workdir: str, capfd: pytest.CaptureFixture[str]) -> None:
    document = answer(capfd, "--workdir", workdir, "-n", "2")
    assert [document[name] for name in ("rows_in", "kept", "quarantined", "filtered")] == [110, 99, 7, 4]
    reasons = document["reasons"]
    assert isinstance(reasons, list)
    assert [(entry["reason"], entry["of"], entry["count"], len(entry["samples"])) for entry in reasons] == [
        ("unparsable_time", "log", 5, 2),
        ("null_user", "log", 2, 2),
        ("catalogue_null_item", "catalogue", 1, 1),
    ]
    assert [entry["meaning"] for entry in reasons] == [REASONS[entry["reason"]] for entry in reasons]
    sample = reasons[0]["samples"][0]
    assert sample["row"] == {"user": "u0", "time": "yester\"day's"}
    assert sample["source_file"] == "/logs/day 1.csv"
    assert document["filtered_reasons"] == {"not_positive": {"count": 4, "meaning": REASONS["not_positive"]}}


def test_one_reason_and_one_interval_can_be_asked_for(workdir: str, capfd: pytest.CaptureFixture[str]) -> None:
    document = answer(capfd, "--workdir", workdir, "--reason", "unparsable_time", "--interval", DAY_2)
    (entry,) = document["reasons"]  # type: ignore[misc]
    assert (entry["count"], document["rows_in"]) == (1, 10)
    assert entry["samples"][0]["source_file"] == "s3://logs/day 2.csv"


def test_people_see_counts_reasons_files_and_short_rows(workdir: str, capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    assert main(["quarantine", "--workdir", workdir]) == 0
    assert time.monotonic() - began < 2
    said = capfd.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == "110 rows in: 99 kept, 7 quarantined, 4 filtered"
    assert "unparsable_time: 5 rows of the log" in lines
    assert f"  {REASONS['null_user']}" in lines
    assert '  /items.csv  {"title": "café"}' in lines
    assert max(map(len, lines)) < 400
    assert said.err == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--reason", "no_reason"],
            "has the reason no_reason; there are catalogue_null_item (1), null_user (2), unparsable",
        ),
        (["--reason", "x' OR '1'='1"], "has the reason x' OR '1'='1"),
        (["--interval", "2024-01-01"], f"came with interval 2024-01-01; there are {DAY_1} (6)"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    words: list[str], expected: str, workdir: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["quarantine", "--workdir", workdir, *words]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert expected in line


def test_a_folder_in_which_nothing_was_ingested_is_told_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["quarantine", "--workdir", str(tmp_path)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert str(tmp_path) in line


def test_an_empty_quarantine_is_said_to_be_empty(workdir: str, capfd: pytest.CaptureFixture[str]) -> None:
    table = Path(workdir) / "tables" / "quarantine"
    empty = pa.table(
        {name: pa.array([], pa.string()) for name in ("reason", "row", "source_file", "source_interval", "user")}
    )
    write_deltalake(str(table), empty, mode="overwrite")
    assert main(["quarantine", "--workdir", workdir]) == 0
    assert "no row is in quarantine" in capfd.readouterr().out
