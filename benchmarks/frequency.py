"""How well a stream's frequencies are estimated: ``python -m benchmarks.frequency --picture docs/frequency.svg``.

The simulation of the two-tower paper (section 6.1): items are drawn with q ~ i^2, and half-way with q turned round. Left: the
error over time for several rates. Right: one, two and four hash functions at equal memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from dr_core.baselines.frequency import FrequencyConfig, FrequencyEstimator

EVERY = 200
RATES = (0.001, 0.005, 0.02, 0.1)
HASHES = (1, 2, 4)


def errors(config: FrequencyConfig, num_items: int, batch: int, steps: int, seed: int) -> tuple[list[int], list[float]]:
    """Return steps and the mean absolute error of the estimated probabilities at them."""
    rng = np.random.default_rng(seed)
    rank = np.arange(num_items, dtype=np.float64)
    found = FrequencyEstimator.empty(config)
    at, wrong = [], []
    for half, weight in enumerate((rank**2, (num_items - 1 - rank) ** 2)):
        share = weight / weight.sum()
        truth = 1 - (1 - share) ** batch
        for step in range(steps):
            found.observe(rng.choice(num_items, batch, p=share))
            if step % EVERY == EVERY - 1:
                at.append(half * steps + step + 1)
                wrong.append(float(np.abs(found.probability(np.arange(num_items)) - truth).mean()))
    return at, wrong


def draw(line: dict[str, Any], target: Path) -> None:
    """Draw both panels."""
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    styles = ("o-", "s--", "^:", "D-.")
    for panel, key, text in zip(panels, ("rates", "hashes"), ("rate", "hashes"), strict=True):
        for (name, values), style in zip(line[key].items(), styles, strict=False):
            panel.plot(line["steps"], values, style, label=f"{text} {name}", markersize=3, markevery=5)
        panel.axvline(line["steps"][len(line["steps"]) // 2 - 1], color="0.6", lw=0.8)
        panel.set_yscale("log")
        panel.set_xlabel("batches; the distribution is turned round half-way")
        panel.legend(frameon=False)
    panels[0].set_ylabel("mean absolute error of p")
    panels[0].set_title(f"{line['items']:,} items, slots for all")
    panels[1].set_title(f"{line['slots']:,} slots of all hashes together")
    figure.savefig(target)


def main() -> int:
    """Simulate; print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frequency", description=__doc__)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10_000, help="batches before the turn, and after it")
    parser.add_argument("--slots", type=int, default=5000, help="slots of all hashes together, right panel")
    parser.add_argument("--picture", type=Path, help="SVG file to draw")
    arguments = parser.parse_args()
    size: tuple[int, int, int] = (arguments.items, arguments.batch, arguments.steps)
    many = 1 << 20
    by_rate: dict[str, list[float]] = {}
    steps: list[int] | npt.NDArray[np.int64] = []
    for rate in RATES:
        config = FrequencyConfig(num_slots=many, num_hashes=1, rate=rate, initial_gap=100.0)
        steps, by_rate[str(rate)] = errors(config, *size, seed=0)
    by_hashes = {}
    for count in HASHES:
        config = FrequencyConfig(num_slots=arguments.slots // count, num_hashes=count, rate=0.02, initial_gap=100.0)
        _, by_hashes[str(count)] = errors(config, *size, seed=0)
    line = {"benchmark": "frequency", "items": arguments.items, "slots": arguments.slots, "steps": steps,
            "rates": by_rate, "hashes": by_hashes}  # fmt: skip
    if arguments.picture:
        draw(line, arguments.picture)
    half = len(steps) // 2 - 1
    print(json.dumps({
        "benchmark": "frequency",
        "error_before_the_turn": {name: round(values[half], 6) for name, values in by_rate.items()},
        "error_at_the_end": {name: round(values[-1], 6) for name, values in by_rate.items()},
        "error_by_hashes": {name: round(values[half], 6) for name, values in by_hashes.items()},
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
