"""A refusal names what mends it, and what is let pass is said."""

import logging
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from dr_core.errors import GateRefused, InputError
from pipelines.datasets.interactions import DatasetConfig
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.preprocess import preprocess
from pipelines.stages.ingest.reasons import REASONS
from pipelines.stages.ingest.row_rules import FILTER_REASONS, PreprocessConfig
from pipelines.stages.ingest.split import SplitConfig
from pipelines.stages.ingest.summary import PreprocessSummary
from pipelines.storage.workdir import Workdir

T0 = 1_704_067_200  # 2024-01-01
HOUR = 3600
DAY = Interval.parse("2024-01-01", "2024-01-02")
FEW = SplitConfig(num_test=1, num_validation=1, min_events=2)


def write_csv(path: Path, header: str, lines: list[str]) -> str:
    path.write_text("\n".join([header, *lines]) + "\n")
    return str(path)


def ingest(
    spark: SparkSession, workdir: Workdir, dataset: dict[str, Any], rules: dict[str, Any], interval: Interval | None
) -> PreprocessSummary:
    config, columns = PreprocessConfig(**rules), {"columns": {"time": "time"}}
    return preprocess(
        spark,
        workdir,
        DatasetConfig(**columns | dataset),
        config,
        FEW,
        history_length=69,
        run_id="run",
        interval=interval,
    )


def lines(time: str = "{second}", more: str = "", step: int = 1800) -> list[str]:
    """40 rows over 20 hours of 8 users with 5 items."""
    return [f"u{n % 8},{n % 5},{time.format(second=T0 + step * n)}{more.format(stars=n % 5 + 1)}" for n in range(40)]


REFUSED: dict[str, tuple[list[str], dict[str, Any], dict[str, Any], str]] = {
    "seconds as milliseconds": (
        lines(), {"time_unit": "milliseconds"}, {}, r"early_time 40\): the numbers, such as 17040\d+, look like seconds",
    ),
    "stars as a flag": (
        lines(more=",{stars}"),
        {"columns": {"time": "time", "label": "stars"}},
        {"positive": {"kind": "flag"}},
        r"invalid_label 32\): column 'stars' is taken as a flag.*dataset\.columns\.rating=stars and"
        r" preprocess\.positive=\{kind: threshold, column: rating, at_least: …\}",
    ),
    "the same purchase twice a day": (
        ["u1,1,2024-01-01"] * 3 + lines("2024-01-01"),
        {"time_unit": "timestamp"},
        {},
        r"duplicate_row 3\): the log has dates only.*preprocess\.duplicate_rows=keep",
    ),
    "a time zone west of the interval's": (
        lines()[:30] + [f"u{n},1,{T0 + 86_400 + HOUR * n}" for n in range(5)],
        {},
        {},
        r"after_interval 5\): 5 rows are of the day after .*2024-01-02T00:00:00Z, up to 2024-01-02T04:00:00Z \(as if days"
        r" ended at midnight of UTC-05:00\).*an offset.*dataset\.time_zone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_names_what_mends_its_leading_reason(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    rows, dataset, rules, words = REFUSED[kind]
    path = write_csv(tmp_path / "log.csv", "user,item,time" + ",stars" * (rows[-1].count(",") - 2), rows)
    workdir = Workdir(str(tmp_path / "W"))
    with pytest.raises(GateRefused, match=words) as caught:
        ingest(spark, workdir, {"path": path} | dataset, rules, DAY)
    assert "\n" not in str(caught.value)
    assert workdir.read(spark, "quarantine").count() > 0
    assert not workdir.has_table(spark, "interactions")


def test_every_reason_has_its_remedy() -> None:
    assert set(FILTER_REASONS) <= set(REASONS)
    assert all(len(words) > 30 and "\n" not in words for words in REASONS.values())


def test_a_catalogue_of_other_ids_is_refused_before_anything_is_written(spark: SparkSession, tmp_path: Path) -> None:
    """Ids that lost their leading zeros would double every item, without a title."""
    events = [f"u{n % 8},0{100 + n % 25},{T0 + n}" for n in range(100)]
    dataset = {
        "path": write_csv(tmp_path / "log.csv", "user,item,time", events),
        "catalogue": write_csv(tmp_path / "items.csv", "item", [str(100 + n) for n in range(25)]),
    }
    workdir = Workdir(str(tmp_path / "W"))
    words = r"items.csv knows 0 of the log's 25 items: the log has .*'0100', '0101', '0102', the catalogue '100', '101'"
    with pytest.raises(InputError, match=words):
        ingest(spark, workdir, dataset, {}, None)
    assert not workdir.exists("tables")
    wanted = ingest(spark, workdir, dataset, {"min_catalogue_share": 0}, None)
    assert (wanted.catalogue_known, wanted.catalogue_known_share, wanted.catalogue_items) == (0, 0.0, 50)


def test_what_is_let_pass_is_said_and_counted(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A shop whose days end an hour later, half a catalogue, and a word that is neither active nor inactive."""
    late = f"u1,1,{T0 + 86_400 + 600}"
    titles = ["0,true", "1.0,sold out", "2,perhaps", "9,yes"]
    dataset = {
        "path": write_csv(tmp_path / "log.csv", "user,item,time", [*lines(), late]),
        "catalogue": write_csv(tmp_path / "items.csv", "item,active", titles),
        "catalogue_columns": {"active": "active"},
    }
    workdir = Workdir(str(tmp_path / "W"))
    with caplog.at_level(logging.WARNING, logger="pipelines"):
        summary = ingest(spark, workdir, dataset, {}, DAY)
    assert (summary.kept, summary.reasons) == (40, {"after_interval": 1})
    assert summary.catalogue_reasons == {"catalogue_unknown_active": 1}
    assert (summary.catalogue_known, summary.catalogue_known_share) == (2, 0.4)
    after, unknown = summary.warnings
    assert after.startswith("1 rows are of the day after the interval's end 2024-01-02T00:00:00Z")
    assert "UTC-01:00" in after
    assert unknown.startswith("1 rows of the catalogue are left out")
    assert [record.getMessage().strip() for record in caplog.records] == summary.warnings
    active = {row.item_key: row.active for row in workdir.read(spark, "items").collect()}
    assert active == {"0": True, "1": False, "2": True, "3": True, "4": True, "9": True}
    local = Interval.parse("2024-01-01", "2024-01-02", zone="-01:00")
    assert (local.start.hour, local.end.hour) == (1, 1)
