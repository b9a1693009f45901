"""Releases made up: a full run and some days after it."""

import json
from dataclasses import replace
from datetime import datetime, timedelta

from pipelines.storage.releases import Release
from tests.made_up_release import RELEASE

FIRST = replace(
    RELEASE,
    release_id="full-1",
    status="retired",
    interval_start="2024-01-01T00:00:00Z",
    interval_end="2024-01-10T00:00:00Z",
    model_uri="models/full-1",
    num_items=1000,
    gates=json.dumps({"health": {"largest_path": 7}}),
    created_at=datetime(2024, 1, 10),
    alpha=1.0,
    learned=["all"],
    facts=json.dumps({"seconds": 300.0}),
)


def days(number: int, *, high: float = 0.01, items_a_day: int = 0) -> list[Release]:
    """The full run and some days after it, each with the end of the interval of its recall's difference."""
    rows = [FIRST]
    for day in range(1, number + 1):
        end = datetime(2024, 1, 10) + timedelta(days=day)
        quality = {"recall": 0.2, "live_recall": 0.21, "first_recall": 0.1234, "low": -0.05, "high": high}
        verdicts = [{"gate": "quality", "figure": 0.0, "bound": "b", "passed": None, "text": "<few> users"}]
        rows.append(
            replace(
                FIRST,
                release_id=f"day-{day}",
                status="live" if day == number else "retired",
                interval_end=end.isoformat() + "Z",
                parent_release=rows[-1].release_id,
                num_items=1000 + items_a_day * day,
                gates=json.dumps({"quality": quality, "verdicts": verdicts}),
                facts=json.dumps({"items_moved": 3, "seconds": 60.0}),
                created_at=end,
            )
        )
    return rows
