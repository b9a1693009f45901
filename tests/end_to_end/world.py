"""The tiny world that whole runs share: its configuration, its log day by day, and the work folder of its first days.

``world.py WORKDIR LOGS START END [first]`` runs day one (``first``) or a day after it, in a process that may be killed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.cli.console import start_logging
from pipelines.config.load import load_config
from pipelines.config.run import RunConfig
from pipelines.datasets.synthetic import SyntheticConfig, generate
from pipelines.flows.day_one import run_day_one
from pipelines.flows.refresh import run_refresh
from pipelines.stages.ingest.interval import Interval

SCRIPT = Path(__file__)
CONFIG = str(SCRIPT.with_name("tiny.yaml"))
START = datetime(2024, 1, 1, tzinfo=UTC)
FIRST_DAYS = 9
LATE, AGAIN, RETIRED = 3, 10, 5


@dataclass(frozen=True)
class TinyWorld:
    """Logs by day (``first``, 9, 10, 11, ``thin``), and the work folder after day one: copy it before you change it."""

    logs: dict[str | int, str]
    workdir: Path

    @property
    def release_id(self) -> str:
        """The live release."""
        (record,) = (self.workdir / "runs").glob("*.json")
        return f"{record.stem}-{tiny_config().em.rounds}"


def tiny_config(*overrides: str) -> RunConfig:
    """Return the tiny world's configuration."""
    return load_config(CONFIG, list(overrides))


def day(number: int, until: int | None = None) -> Interval:
    """Return a day of the world, or the days up to another one, that one included."""
    return Interval(START + timedelta(days=number), START + timedelta(days=(until or number) + 1))


FIRST = day(0, FIRST_DAYS - 1)


def write_logs(folder: Path) -> dict[str | int, str]:
    """Write logs as they are delivered, one folder a delivery: the first nine days together, then single ones.

    Day 9 brings three events of day 8 late (held back before) and day 8's last ten again; it also brings an item that
    nobody has seen. From day 10 on five items are retired. ``thin`` is day 9 with one event in twenty.
    """
    world = SyntheticConfig(num_users=400, num_items=200, mean_events=30, num_days=12, new_item_share=0.2, seed=3)
    events, catalogue = generate(world)
    cold = pc.max(catalogue["item_id"])
    events = events.filter(pc.not_equal(events["item_id"], cold))
    number = ((pc.cast(events["timestamp"], pa.int64()).to_numpy() - int(START.timestamp())) // 86_400).astype(int)
    order = np.arange(len(number))
    held_back = order[number == FIRST_DAYS - 1][:LATE]
    again = order[number == FIRST_DAYS - 1][-AGAIN:]
    first_event = pd.Series(number).groupby(events["item_id"].to_numpy()).min()
    chosen: dict[str | int, np.ndarray] = {  # type: ignore[type-arg]
        "first": order[(number < FIRST_DAYS) & ~np.isin(order, held_back)],
        9: np.concatenate([order[number == 9], held_back, again]),
        10: order[number == 10],
        11: order[number == 11],
        "thin": order[number == 9][::20],
    }
    found = {}
    for name, rows in chosen.items():
        place = folder / (day(name).start.date().isoformat() if isinstance(name, int) else name)
        place.mkdir(parents=True)
        pq.write_table(events.take(rows), place / "logs.parquet")
        until = name if isinstance(name, int) else {"first": FIRST_DAYS - 1, "thin": 9}[name]
        items = catalogue["item_id"].to_numpy()
        is_known = np.array([first_event.get(item, 99) <= until for item in items]) | (items == cold.as_py())
        listed = catalogue.filter(is_known)
        retired = np.isin(listed["item_id"].to_numpy(), items[:RETIRED]) & (until >= 10)
        active = pc.and_(pa.array(np.ones(len(listed), bool)), pa.array(~retired))
        listed = listed.set_column(listed.schema.get_field_index("active"), "active", active)
        pq.write_table(listed, place / "catalogue.parquet")
        found[name] = str(place / "logs.parquet")
    return found


if __name__ == "__main__":
    start_logging()
    place, log, *moments = sys.argv[1:5]
    words = sys.argv[5:]
    if words[:1] == ["first"]:
        run_day_one(tiny_config(*words[1:]), place, logs=log, interval=Interval.parse(*moments))
    else:
        run_refresh(tiny_config(*words), place, Interval.parse(*moments), logs=log)
