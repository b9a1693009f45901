"""A watch log as it is delivered in practice, day by day, and what the interactions table must hold after each.

Deliveries are late, repeated, dirty and once cut short; what must be kept of them is worked out here with pandas and the
stated policy alone (:class:`~pipelines.stages.ingest.row_rules.PreprocessConfig`), so that it can stand as an oracle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.datasets.synthetic import SyntheticConfig, generate
from pipelines.stages.ingest.interval import Interval

SECONDS_PER_DAY = 86_400
KEY = ["user_id", "item_id", "timestamp"]
BAD_ROWS = 4
"""Rows of a delivery that must end in quarantine: no item, a time before 1970, a time in the future, a repeated row."""


@dataclass
class Deliveries:
    """A world of ``first_days`` delivered together and ``days`` single ones.

    Of every day 3 % of the events come a day late and 1 % two days late, and 20 events of the day before come again. On
    ``short_day`` one event in twenty arrives, the rest with the next day. From ``retired_day`` on five items are retired.

    Args:
        folder: where the files are written.
        first_days: days of the first delivery.
        days: single days after it.
        min_events: users with fewer events are left out of the first delivery.
        late_days: events older than this before a delivery's day are too late.
    """

    folder: Path
    first_days: int
    days: int
    seed: int
    min_events: int
    late_days: int = 3
    short_day: int = -1
    retired_day: int = -1
    num_users: int = 400
    num_items: int = 200
    mean_events: float = 40.0
    expected: pd.DataFrame = field(init=False)
    """user, item (strings) and timestamp of every event that interactions must hold, once each."""

    def __post_init__(self) -> None:
        world = SyntheticConfig(
            num_users=self.num_users,
            num_items=self.num_items,
            mean_events=self.mean_events * (1 + self.days / self.first_days),
            num_days=self.first_days + self.days,
            new_item_share=0.3,
            drift=0.5,
            seed=self.seed,
        )
        logs, self._catalogue = generate(world)
        self._start = world.start_timestamp
        self._events = logs.to_pandas().drop_duplicates(KEY).reset_index(drop=True)
        day = ((self._events["timestamp"] - self._start) // SECONDS_PER_DAY).to_numpy()
        rng = np.random.default_rng(self.seed)
        delay = rng.choice(3, size=len(day), p=[0.96, 0.03, 0.01])
        arrives = np.maximum(day + delay, self.first_days - 1)
        if self.short_day >= 0:
            held = (arrives == self.short_day) & (np.arange(len(day)) % 20 > 0)
            arrives[held] += 1
        self._day, self._arrives = day, arrives
        self.removed_users: set[str] = set()
        self.quarantined: list[str] = []
        self.expected = pd.DataFrame({"user": [], "item": [], "timestamp": []}).astype({"timestamp": np.int64})

    def interval(self, day: int) -> Interval:
        """Return a day's interval; that of ``first_days - 1`` holds all days of the first delivery."""
        first = 0 if day == self.first_days - 1 else day
        moments = [
            pd.Timestamp(self._start + n * SECONDS_PER_DAY, unit="s", tz="UTC").isoformat() for n in (first, day + 1)
        ]
        return Interval.parse(moments[0], moments[1])

    def write(self, day: int) -> tuple[str, str]:
        """Write a day's delivery; return the log's and the catalogue's path."""
        folder = self.folder / f"{day:02}"
        folder.mkdir(parents=True, exist_ok=True)
        events = self._delivered(day)
        pq.write_table(pa.Table.from_pandas(pd.concat([events, self._bad_rows(events, day)]), preserve_index=False),
                       folder / "logs.parquet")  # fmt: skip
        catalogue = self._catalogue.to_pandas()
        first_day = self._events.assign(day=self._day).groupby("item_id")["day"].min()
        listed = catalogue[catalogue["item_id"].map(first_day).fillna(0) <= day].copy()
        if self.retired_day >= 0 and day >= self.retired_day:
            listed.loc[listed["item_id"].isin(catalogue["item_id"][:5]), "active"] = False
        pq.write_table(pa.Table.from_pandas(listed, preserve_index=False), folder / "catalogue.parquet")
        return str(folder / "logs.parquet"), str(folder / "catalogue.parquet")

    def expect(self, day: int) -> None:
        """Add to ``expected`` what must be kept of a day's delivery, and to ``quarantined`` the users of what must not."""
        start = self._start + SECONDS_PER_DAY * day
        rows = self._delivered(day)
        self.quarantined += self._bad_rows(rows, day)["user_id"].astype(str).tolist()
        if day == self.first_days - 1:
            rows = rows[rows.groupby("user_id")["item_id"].transform("size") >= self.min_events]
        else:
            is_too_late = rows["timestamp"] < start - self.late_days * SECONDS_PER_DAY
            self.quarantined += rows.loc[is_too_late, "user_id"].astype(str).tolist()
            rows = rows[~is_too_late]
        rows = rows.rename(columns={"user_id": "user", "item_id": "item"})[["user", "item", "timestamp"]]
        rows = rows.astype({"user": str, "item": str})
        self.expected = pd.concat([self.expected, rows]).drop_duplicates().reset_index(drop=True)

    def remove_user(self, user: str) -> None:
        """From now on the user sends nothing, and nothing of theirs may remain."""
        self.removed_users.add(user)
        self.quarantined = [name for name in self.quarantined if name != user]
        self.expected = self.expected[self.expected["user"] != user].reset_index(drop=True)

    def _delivered(self, day: int) -> pd.DataFrame:
        rows = self._events[self._arrives == day]
        if day >= self.first_days:
            again = self._events[self._arrives == day - 1]
            rows = pd.concat([rows, again.sample(min(20, len(again)), random_state=self.seed + day)])
        return rows[~rows["user_id"].astype(str).isin(self.removed_users)].drop_duplicates(KEY)

    def _bad_rows(self, events: pd.DataFrame, day: int) -> pd.DataFrame:
        bad = events.tail(BAD_ROWS).copy()
        bad["item_id"] = bad["item_id"].astype("Int64")
        bad.iloc[0, bad.columns.get_loc("item_id")] = pd.NA
        bad.iloc[1, bad.columns.get_loc("timestamp")] = -1
        bad.iloc[2, bad.columns.get_loc("timestamp")] = self._start + (day + 30) * SECONDS_PER_DAY
        return bad
