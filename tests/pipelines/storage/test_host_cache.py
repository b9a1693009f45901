"""Copies of remote folders on this host."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dr_core.errors import ConfigError, InputError
from pipelines.storage import host_cache
from pipelines.storage.host_cache import cache_root, evict, use

ROOT = Path(__file__).parents[3]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DR_CACHE_GB", "2e-6")
    return tmp_path / "cache"


def use_elsewhere(name: str, num_bytes: int) -> None:
    """Fill a folder from a process that ends."""
    script = f"from pipelines.storage.host_cache import use; (use({name!r}) / 'a').write_bytes(bytes({num_bytes}))"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def folders(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if path.is_dir()}


def test_only_this_user_can_read_the_cache(cache: Path) -> None:
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    assert cache_root() == cache
    assert cache.stat().st_mode & 0o777 == 0o700


def test_the_cache_lies_in_the_users_own_folder_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DR_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "deep_retrieval"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_root() == tmp_path / "home" / ".cache" / "deep_retrieval"


def test_another_users_folder_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: cache.stat().st_uid + 1)
    with pytest.raises(InputError, match="belongs to another user"):
        cache_root()


def test_folders_used_longest_ago_go_until_the_rest_fits(cache: Path) -> None:
    for age, name in enumerate(("oldest", "middle", "newest")):
        use_elsewhere(name, 900)
        os.utime(cache / name, (age, age))
    assert evict() == ["oldest"]
    assert folders(cache) == {"middle", "newest"}
    use_elsewhere("middle", 900)
    use_elsewhere("another", 900)
    assert evict() == ["newest"], "a folder that was used again is not the oldest"
    assert {path.name for path in cache.iterdir() if path.is_file()} == {"cache.lock", "middle.lock", "another.lock"}


def test_a_folder_in_use_is_never_evicted(cache: Path) -> None:
    """Neither one of another process nor one of this; it goes once the process has ended."""
    script = (
        "import sys; from pipelines.storage.host_cache import use; use('theirs'); print(flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    other.stdout.readline()
    mine = use("mine")
    for age, name in enumerate(("theirs", "mine")):
        (cache / name / "a").write_bytes(bytes(5000))
        os.utime(cache / name, (age, age))
    use_elsewhere("idle", 10)
    assert evict() == ["idle"]
    other.communicate("")
    assert evict() == ["theirs"]
    assert use("mine") == mine
    assert (mine / "a").exists()


def test_a_limit_that_is_no_number_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(host_cache.LIMIT_VARIABLE, "much")
    with pytest.raises(ConfigError, match="DR_CACHE_GB=much"):
        evict()
