"""A log that has changed is told from one that has not, whatever it consists of."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from dr_core.errors import InputError
from pipelines.datasets import fingerprint as module
from pipelines.datasets.fingerprint import Fingerprint, difference, difference_of_part, fingerprint, is_there

MAY = 1_714_644_000  # 2024-05-02T10:00:00Z


def taken(path: Path | str) -> Fingerprint:
    found = fingerprint(str(path))
    assert found is not None
    return Fingerprint.from_dict(json.loads(json.dumps(found.as_dict())))


def folder_of(place: Path, **files: str) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / f"{name}.csv").write_text(text)
        os.utime(place / f"{name}.csv", (MAY, MAY))
    return place


def commit(place: Path, version: int, *actions: dict[str, object]) -> None:
    log = place / "_delta_log"
    log.mkdir(parents=True, exist_ok=True)
    (log / f"{version:020d}.json").write_text("\n".join(map(json.dumps, [{"commitInfo": {"n": version}}, *actions])))


def add(name: str, **more: object) -> dict[str, object]:
    return {"add": {"path": name, "size": 1, "dataChange": True, **more}}


def remove(name: str, **more: object) -> dict[str, object]:
    return {"remove": {"path": name, "dataChange": True, **more}}


def test_the_short_form_says_how_much_and_how_new(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "log", a="x" * 12_000_000, b="y" * 400_000, c="")
    assert taken(folder).text == "3 files, 12.4 MB, newest 2024-05-02T10:00:00Z"
    assert taken(folder / "c.csv").text == "1 file, 0 bytes, newest 2024-05-02T10:00:00Z"
    commit(tmp_path / "table", 0, {"metaData": {}}, add("a"))
    commit(tmp_path / "table", 12, add("b"))
    assert taken(tmp_path / "table").text.startswith("Delta table, version 12, newest 20")


def replaced_by_a_folder(file: Path) -> None:
    text = file.read_text()
    file.unlink()
    folder_of(file, **{"part-0": text, "part-1": text})


def rewritten(file: Path) -> None:
    stat = file.stat()
    file.write_text(file.read_text().replace("i1", "i9"))
    os.utime(file, (stat.st_atime, stat.st_mtime))


CHANGES: dict[str, Callable[[Path], object]] = {
    "rows appended": lambda place: (place / "b.csv").open("a").write("u2,i2\n"),
    "rows corrected, same size and time": lambda place: rewritten(place / "b.csv"),
    "emptied": lambda place: (place / "b.csv").write_text(""),
    "a file more": lambda place: (place / "c.csv").write_text("u3,i3\n"),
    "a file less": lambda place: (place / "b.csv").unlink(),
    "a file renamed": lambda place: (place / "b.csv").rename(place / "z.csv"),
    "a file more in a folder below": lambda place: folder_of(place / "day=2", part="u,i\n"),
    "a file replaced by a folder": lambda place: replaced_by_a_folder(place / "b.csv"),
    "one file of the two swapped for the other": lambda place: (place / "b.csv").write_text(
        (place / "a.csv").read_text()
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_contents_is_a_change(tmp_path: Path, change: str) -> None:
    folder = folder_of(tmp_path / "log[1]", a="u1,i7\n", b="u1,i1\n")
    folder_of(tmp_path / "log1", a="of another log")
    paths = [str(folder), f"{folder}/*.csv" if "below" not in change else str(folder)]
    before = [taken(path) for path in paths]
    CHANGES[change](folder)
    for path, known in zip(paths, before, strict=True):
        words = difference(known, taken(path))
        assert words is not None
        assert words.startswith("2 files, 12 bytes, newest 2024-05-02T10:00:00Z -> ")


SAME: dict[str, Callable[[Path], object]] = {
    "nothing": lambda place: None,
    "touched": lambda place: (place / "b.csv").touch(),
    "written again": lambda place: (place / "b.csv").write_text("u1,i1\n"),
    "marked as done": lambda place: (place / "_SUCCESS").write_text(""),
    "seen by a file browser": lambda place: (place / ".DS_Store").write_text("x"),
    "checksums beside it": lambda place: (place / ".b.csv.crc").write_text("x"),
    "half-written parts of a job": lambda place: folder_of(place / "_temporary" / "0", part="u,i\n"),
    "moved and linked": lambda place: (
        place.rename(place.with_name("moved")) and place.symlink_to(place.with_name("moved"))
    ),
    "a file moved and linked": lambda place: (
        (place / "a.csv").rename(place.parent / "a.csv") and (place / "a.csv").symlink_to(place.parent / "a.csv")
    ),
}


@pytest.mark.parametrize("act", SAME)
def test_what_leaves_the_contents_is_none(tmp_path: Path, act: str) -> None:
    folder = folder_of(tmp_path / "log", a="u1,i7\n", b="u1,i1\n")
    before = taken(folder)
    SAME[act](folder)
    assert difference(before, taken(folder)) is None


def test_large_logs_are_told_apart_by_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HASHED_BYTES", 10)
    folder = folder_of(tmp_path / "log", a="u1,i7\n", b="u1,i1\n")
    before = taken(folder)
    assert {state.sha256 for state in before.files.values()} == {None}
    (folder / "b.csv").write_text("u1,i9\n")
    words = difference(before, taken(folder))
    assert words is not None
    assert "changed: b.csv" in words


def test_names_beyond_the_third_are_counted(tmp_path: Path) -> None:
    before = taken(folder_of(tmp_path / "log", a="1"))
    words = difference(before, taken(folder_of(tmp_path / "log", b="1", c="1", d="1", e="1", f="1")))
    assert words is not None
    assert words.endswith("(new: b.csv, c.csv, d.csv and 2 more)")


def test_thousands_of_files_take_no_time(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "log", **{f"part-{number:04}": "u,i\n" for number in range(3000)})
    started = time.monotonic()
    assert taken(folder).text.startswith("3,000 files, 12.0 kB")
    assert time.monotonic() - started < 3


def test_other_file_systems_are_told_apart_by_their_tags(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe({"/store/log/a.csv": b"u1,i1\n", "/store/log/b.csv": b"u1,i2\n"})
    before = taken("memory://store/log")
    assert difference(before, taken("memory://store/log")) is None
    store.pipe("/store/log/b.csv", b"u1,i3\n")
    words = difference(before, taken("memory://store/log"))
    assert words is not None
    assert "changed: b.csv" in words
    assert is_there("memory://store/log/*.csv")
    assert not is_there("memory://store/log/*.json")
    assert fingerprint("memory://store/nothing") is None


def test_a_delta_table_changes_with_its_rows_and_not_with_their_layout(tmp_path: Path) -> None:
    table = tmp_path / "table"
    commit(table, 0, {"protocol": {}}, {"metaData": {"schemaString": "a"}}, add("a"))
    before = taken(table)
    commit(table, 1, remove("a", dataChange=False), add("b", dataChange=False))
    commit(table, 2)
    assert difference(before, taken(table)) is None, "compaction and VACUUM"
    for version, actions in enumerate([[add("c")], [remove("b")], [{"metaData": {"schemaString": "b"}}]], start=3):
        known = taken(table)
        commit(table, version, *actions)
        assert difference(known, taken(table)) is not None
    known = taken(table)
    commit(table, 5, {"metaData": {"schemaString": "another table in its place"}})
    assert difference(known, taken(table)) is not None
    (table / "_delta_log" / f"{0:020d}.json").unlink()
    for file in (table / "_delta_log").glob("*.json"):
        file.unlink()
    with pytest.raises(InputError, match="holds no commit"):
        fingerprint(str(table))


def test_what_is_only_added_is_no_change_of_a_part(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "log", a="u1,i7\n", b="u1,i1\n")
    file, table = folder / "b.csv", tmp_path / "table"
    commit(table, 0, {"metaData": {}}, add("a"))
    known = {path: taken(path) for path in (folder, file, table)}

    def change(path: Path) -> str | None:
        return difference_of_part(known[path], taken(path), str(path))

    folder_of(folder, c="u3,i3\n")
    file.open("a").write("u2,i2\n")
    commit(table, 1, add("b"))
    commit(table, 2, remove("b", dataChange=False), add("c", dataChange=False))
    assert [change(path) for path in known] == [None, None, None]
    file.write_text("u1,i9\nu2,i2\n")
    commit(table, 3, remove("c"), add("d"))
    for path in known:
        assert change(path) is not None, path
    words = change(folder)
    assert words is not None
    assert words.endswith("(changed: b.csv)")
