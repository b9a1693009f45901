"""Histories from a file, and a user of the log: what `dr retrieve` asks and answers."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from dr_core.errors import InputError
from pipelines.serving.request import Request
from pipelines.serving.service import Service
from pipelines.serving.user_files import read_users, write_lines
from tests.pipelines.serving.conftest import KEYS, NUM_ITEMS, Published


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_users_of_a_file_get_what_they_get_alone(
    published: Published, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    users = {f"u{number}": [KEYS[number % NUM_ITEMS], KEYS[(5 * number) % NUM_ITEMS]] for number in range(300)}
    lines = [json.dumps({"user": user, "history": history}) for user, history in users.items()]
    lines[100:100] = ["", json.dumps({"user": 7, "history": ["x", "y"]})]
    lines += [json.dumps({"user": "u0", "history": [KEYS[0], "x", float("7"), "7.0"]})]
    (tmp_path / "users").write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING):
        totals = Request(published.folder.uri, k=5).for_file(str(tmp_path / "users"), str(tmp_path / "out"))
    assert totals == {"users": 302, "unknown": 3, "without_items": 1, "below_k": 1}
    *rows, last = lines_of(tmp_path / "out")
    assert [row["user"] for row in rows] == [*list(users)[:100], "7", *list(users)[100:]]
    assert rows[100] == {
        "user": "7", "wanted": 5, "returned": 0, "unknown": 2, "items": [], "reason": "no item of the history is known",
    }  # fmt: skip
    assert (last["user"], last["unknown"], last["returned"]) == ("u0", 1, 5)
    by_user, service = {row["user"]: row for row in rows}, Service(published.folder)
    for user in ("u0", "u255", "u256", "u299"):
        alone = service.recommend([users[user]], 5)[0].document["items"]
        assert [item["item_key"] for item in by_user[user]["items"]] == [item["item_key"] for item in alone]
        assert by_user[user]["items"][0]["score"] == pytest.approx(alone[0]["score"], abs=2e-4)
        assert by_user[user]["unknown"] == 0
    assert caplog.messages == [
        "1 lines are of a user who stands on an earlier line; each is answered",
        "3 item keys in the histories are not known to r-2 and were left out",
        "1 of 302 users have no item that is known to r-2",
        "1 of 302 users have fewer than 5 items: ask for more paths: --beam",
    ]
    assert list(tmp_path.glob("*.tmp")) == []


@pytest.mark.parametrize(
    "line",
    ["not json", "[]", '{"user": "u"}', '{"history": []}', '{"user": "u", "history": "318,1196"}', '{"user": "u", "history": 3}',
     '{"user": "u", "history": [null]}', '{"user": "u", "history": [["1"]]}', '{"user": null, "history": []}',
     '{"user": "u", "history": {"1": 2}}', '{"user": "u", "history": [true]}', '{"user": " ", "history": ["1"]}',
     '{"user": "u", "history": [1.5]}', '{"user": "u", "history": [NaN]}', '{"user": "u", "history": [1e300]}',
     '{"user": false, "history": ["1"]}', '{"user": ["u"], "history": ["1"]}', '{"user": "u", "history": ["1"], "history": []}',
     "u,318,1196", '[{"user": "u", "history": ["1"]}]', '{"user": "u", "history": ["1"]', '{"user": "u", "history": ["\\ud800"]}',
     '{"user": "a", "history": []} {"user": "b", "history": []}'],
)  # fmt: skip
def test_a_malformed_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "users").write_text('{"user": "u", "history": ["1"]}\n\n' + line)
    with pytest.raises(InputError, match="users, line 3: ") as refused:
        read_users(str(tmp_path / "users"))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_none_of_users_is_refused_in_a_line(published: Published, tmp_path: Path) -> None:
    line = b'{"user": "u", "history": ["1"]}\n'
    files = {
        "empty": (b"", "holds no users"),
        "blank": (b"\n \r\n", "holds no users"),
        "utf16": (line.decode().encode("utf-16"), "is not UTF-8"),
        "latin1": ('{"user": "Bj\xf6rk", "history": []}'.encode("latin-1"), "is not UTF-8"),
        "cut.gz": (gzip.compress(line)[:20], "cannot be read"),
        "text.gz": (line, "cannot be read"),
    }
    for name, (contents, word) in files.items():
        (tmp_path / name).write_bytes(contents)
        with pytest.raises(InputError, match=word):
            read_users(str(tmp_path / name))
    for name, word in (("nowhere", "does not exist"), (".", "cannot be read"), ("nowhere://x", "cannot be read")):
        with pytest.raises(InputError, match=word):
            read_users(name if "//" in name else str(tmp_path / name))
    (tmp_path / "users").write_bytes(line)
    for out, word in (("users", "reads"), (".", "is a folder"), ("no/where", "no such folder")):
        with pytest.raises(InputError, match=word):
            Request(published.folder.uri).for_file(str(tmp_path / "users"), str(tmp_path / out))
    assert (tmp_path / "users").read_bytes() == line
    (tmp_path / "out").write_text("of yesterday")
    with pytest.raises(InputError, match="does not know 1 of 1 blocked items: x; mend the list"):
        Request(published.folder.uri, blocked=["x"]).for_file(str(tmp_path / "users"), str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "of yesterday"
    assert list(tmp_path.glob("*.tmp")) == []


def test_line_ends_marks_and_compression_do_not_matter(tmp_path: Path) -> None:
    text = '{"user": 1.0, "history": [318.0, "a,b", 7]}\n{"user": "é", "history": []}\n'
    expected = [("1", ["318", "a,b", "7"]), ("é", [])]
    for name, contents in (
        ("unix", text.encode()),
        ("windows", text.replace("\n", "\r\n").encode()),
        ("marked", text.encode("utf-8-sig")),
        ("small.gz", gzip.compress(text.encode())),
        ("open", text.strip().encode()),
    ):
        (tmp_path / name).write_bytes(contents)
        assert read_users(str(tmp_path / name)) == expected


def test_an_interrupted_file_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("of yesterday")
    with pytest.raises(KeyboardInterrupt), write_lines(str(target)) as write:
        write({"user": "u"})
        raise KeyboardInterrupt
    assert target.read_text() == "of yesterday"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["out"]


# ---------------------------------------------------------------- users of the log


@pytest.fixture
def known(published: Published) -> Published:
    """Users of the log whose last items, all kept items and other items differ."""
    histories = {"7": [3, 4], "o'brien": [5, NUM_ITEMS, 6], "new": [NUM_ITEMS, NUM_ITEMS + 1]}
    older = {"7": [0, 1, 3, 4], "o'brien": [5, NUM_ITEMS, 6], "new": [NUM_ITEMS, NUM_ITEMS + 1]}
    rows = [(user, item) for user, items in older.items() for item in items]
    pairs = [("7", KEYS[11]), ("7", KEYS[12]), ("7", "never kept"), ("o'brien", KEYS[11]), ("looked", KEYS[2])]
    tables = {
        "user_histories": pa.table(
            {"user": list(histories), "item_ids": pa.array(list(histories.values()), pa.list_(pa.int32()))}
        ),
        "interactions": pa.table(
            {"user": [row[0] for row in rows], "item_id": pa.array([row[1] for row in rows], pa.int32())}
        ),
        "seen_items": pa.table(
            {
                "user": [pair[0] for pair in pairs],
                "item_key": [pair[1] for pair in pairs],
                "source_interval": ["all"] * 5,
            }
        ),
    }
    for name, table in tables.items():
        write_deltalake(published.folder.path("tables", name), table)
    return published


def keys_in(document: dict[str, Any]) -> set[str]:
    return {item["item_key"] for item in document["items"]}


def test_a_user_of_the_log_gets_what_the_log_does_not_hold(known: Published) -> None:
    service = Service(known.folder, beam=16)
    first, second = (answer.document for answer in service.recommend_users([7.0, "o'brien"], 40))
    assert (first["user"], first["history"], first["unknown"]) == ("7", [KEYS[3], KEYS[4]], [])
    assert keys_in(first) == set(KEYS[:NUM_ITEMS]) - {KEYS[item] for item in (0, 1, 3, 4, 11, 12)}
    assert (second["history"], second["unknown"]) == ([KEYS[5], KEYS[NUM_ITEMS], KEYS[6]], [KEYS[NUM_ITEMS]])
    assert keys_in(second) == set(KEYS[:NUM_ITEMS]) - {KEYS[5], KEYS[6], KEYS[11]}
    kept, shown = (
        service.recommend_users(["7"], 40, keep_history=True, blocked=[KEYS[3]], explain=True)[0].document,
        service.recommend([[KEYS[3], KEYS[4]]], 40, keep_history=True, blocked=[KEYS[3]], explain=True)[0].document,
    )
    assert kept == shown | {"user": "7"}
    assert Request(known.folder.uri, k=5).for_user(" 7.0 ").document["user"] == "7"


@pytest.mark.parametrize(
    ("user", "word"),
    [("nobody", "user 'nobody' has no history in .*: the log has no row"), ("07", "'07' has no history"),
     ("looked", "none of that user's rows in the log was kept"), ("new", "only items that came after r-2"),
     ("7' OR '1'='1", "has no history")],
)  # fmt: skip
def test_a_user_without_a_history_is_refused(known: Published, user: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        Request(known.folder.uri).for_user(user)


def test_a_user_is_found_where_nothing_was_filtered(known: Published) -> None:
    known.folder.remove("tables", "seen_items")
    found = Service(known.folder, beam=16).recommend_users(["7"], 40)[0].document
    assert keys_in(found) == set(KEYS[:NUM_ITEMS]) - {KEYS[item] for item in (0, 1, 3, 4)}
