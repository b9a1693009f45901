"""Sessions that start at the same time: one fetches the Delta JARs, nobody waits once they are there."""

import threading
from pathlib import Path

import pytest

from pipelines import session


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session.tempfile, "gettempdir", lambda: str(tmp_path))


def started_beside(seconds: float) -> bool:
    """Return whether a second start gets on within some time while the first one is under way."""
    entered = threading.Event()

    def start() -> None:
        with session.delta_fetched_once():
            entered.set()

    with session.delta_fetched_once():
        second = threading.Thread(target=start)
        second.start()
        beside = entered.wait(seconds)
    second.join(60)
    assert entered.is_set(), "the second start goes on once the first one is done"
    return beside


def test_on_a_new_machine_the_second_start_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "delta_jars", list)
    assert not started_beside(0.5)


def test_with_the_jars_in_the_cache_nobody_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(session, "delta_jars", lambda: [tmp_path / "delta.jar"])
    assert started_beside(60)


def test_a_start_that_finds_half_a_cache_waits_for_who_fills_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first JAR lies there before the last: from then on others see it, and still have to wait."""
    answers = iter([[], [tmp_path / "delta.jar"]])
    monkeypatch.setattr(session, "delta_jars", lambda: next(answers))
    assert not started_beside(0.5)
