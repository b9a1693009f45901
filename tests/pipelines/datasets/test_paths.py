"""What Spark is told to read, and under which name."""

from pathlib import Path

import fsspec
import pytest

from dr_core.errors import InputError
from pipelines.datasets.paths import find_source, literal


def test_files_keep_the_scheme_and_host_of_their_path() -> None:
    filesystem = fsspec.filesystem("memory")
    for name in ("2024/a.csv", "2025/b.csv"):
        filesystem.pipe(f"/bucket/logs/{name}", b"user,item\n")
    for path in ("memory://bucket/logs", "memory://bucket/logs/", "memory://bucket/logs/*/*.csv"):
        source = find_source(path, "log")
        assert [file.uri for file in source.files] == [
            "memory://bucket/logs/2024/a.csv",
            "memory://bucket/logs/2025/b.csv",
        ]


def test_relative_paths_become_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "[x]").mkdir()
    (tmp_path / "[x]" / "a.csv").write_text("user,item\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("[x]", "./[x]/", "~/[x]", f"file://{tmp_path}/[x]"):
        source = find_source(path, "log")
        assert source.files[0].uri.removeprefix("file://") == f"{tmp_path}/[x]/a.csv"
        assert source.short_name(source.files[0]) == "a.csv"
        assert source.for_spark(source.files)[0].removeprefix("file://") == rf"{tmp_path}/\[x\]"


def test_a_flat_folder_is_read_as_such_and_others_file_by_file(tmp_path: Path) -> None:
    for name in ("day=1/a", "day=2/b", "deep/c"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("user,item\n")
    days = find_source(f"{tmp_path}/day=1", "log")
    assert days.for_spark(days.files) == [f"{tmp_path}/day=1"]
    everything = find_source(str(tmp_path), "log")
    assert everything.for_spark(everything.files) == [f"{tmp_path}/{name}" for name in ("day=1/a", "day=2/b", "deep/c")]
    with pytest.raises(InputError, match="deep/c does not lie in folders of day as day=1/a does"):
        _ = everything.folder_columns
    (tmp_path / "deep" / "c").unlink()
    both = find_source(str(tmp_path), "log")
    assert (both.folder_columns, both.for_spark(both.files)) == (["day"], [str(tmp_path)])
    assert both.for_spark(both.files[:1]) == [f"{tmp_path}/day=1/a"]


def test_every_character_that_is_a_pattern_to_spark_is_escaped() -> None:
    assert literal("a[1]{b,c}?*\\") == r"a\[1\]\{b,c\}\?\*\\"
