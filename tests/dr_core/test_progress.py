"""What long loops say: seldom, and truly."""

from __future__ import annotations

import logging
import re
from typing import Any

import numpy as np
import pytest

from dr_core import progress
from dr_core.baselines.base import Baseline, Events
from dr_core.baselines.ffm import FFM, FFMConfig
from dr_core.baselines.item_cf import ItemCF
from dr_core.baselines.mult_vae import MultVAE, MultVAEConfig
from dr_core.baselines.softmax_encoders import SoftmaxEncoder, SoftmaxEncoderConfig
from dr_core.baselines.streaming_vq import StreamingVQ, StreamingVQConfig
from dr_core.baselines.two_tower import TwoTower, TwoTowerConfig
from dr_core.item_lists import ItemLists
from dr_core.learning import trainer
from dr_core.model.encoder import EncoderConfig
from dr_core.progress import Progress

BASELINES: dict[str, Any] = {
    "item_cf": lambda: ItemCF(),
    "mult_vae": lambda: MultVAE(MultVAEConfig(epochs=2, hidden=8, latent=4)),
    "ffm": lambda: FFM(FFMConfig(epochs=2)),
    "two_tower": lambda: TwoTower(TwoTowerConfig(epochs=2)),
    "streaming_vq": lambda: StreamingVQ(StreamingVQConfig(epochs=2)),
    "youtube_dnn": lambda: SoftmaxEncoder(
        "youtube_dnn", SoftmaxEncoderConfig(epochs=2, encoder=EncoderConfig(kind="mean"))
    ),
}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that have gone by."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def said(caplog: pytest.LogCaptureFixture) -> list[list[int]]:
    """Return percentage, seconds spent and seconds to go of every line."""
    return [[int(number) for number in re.findall(r"\d+", record.getMessage())] for record in caplog.records]


def test_a_steady_loop_is_told_of_every_ten_seconds_with_the_rest_it_really_takes(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dr_core.progress")
    loop = Progress("loop", 100)
    for done in range(1, 101):
        clock[0] += 0.5
        loop.at(done)
    assert said(caplog) == [[20, 10, 40], [40, 20, 30], [60, 30, 20], [80, 40, 10], [100, 50, 0]]


def test_a_short_loop_is_silent(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dr_core.progress")
    loop = Progress("loop", 3)
    for done in (1, 2, 3):
        clock[0] += 3
        loop.at(done)
    assert not caplog.records


@pytest.mark.parametrize("name", BASELINES)
def test_every_fit_that_may_take_minutes_tells_how_far_it_is_and_ends_with_all_of_it(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dr_core.progress")
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(trainer, "SECONDS_BETWEEN_REPORTS", 0.0)
    rng = np.random.default_rng(0)
    events = Events(ItemLists.from_rows([rng.integers(40, size=8) for _ in range(600)]), 40)
    baseline: Baseline = BASELINES[name]()
    baseline.fit(events)
    shares = [line[0] for line in said(caplog)]
    assert all(record.getMessage().startswith(f"  {name}: ") for record in caplog.records)
    assert shares == sorted(shares)
    assert shares[-1] == 100
