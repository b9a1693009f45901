"""The trend page and the rule for when a full run is due, on releases made up here."""

import json
from dataclasses import replace
from datetime import datetime, timedelta

from pipelines.config.run import RunConfig
from pipelines.report.releases_page import render, retrain_due
from pipelines.storage.releases import Release

CONFIG = RunConfig.model_validate({"name": "world", "dataset": {}})
FIRST = Release(
    release_id="full-1",
    status="retired",
    interval_start="2024-01-01T00:00:00Z",
    interval_end="2024-01-10T00:00:00Z",
    parent_release=None,
    model_uri="models/full-1",
    model_sha256="ab",
    K=10,
    D=2,
    J=1,
    num_items=1000,
    config_hash="cd",
    gates=json.dumps({"health": {"largest_path": 7}, "alpha": 1.0, "learned": ["all"], "seconds": 300.0}),
    created_at=datetime(2024, 1, 10),
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
                gates=json.dumps({"quality": quality, "items_moved": 3, "verdicts": verdicts, "seconds": 60.0}),
                created_at=end,
            )
        )
    return rows


def test_a_full_run_is_due_by_age_new_items_or_lost_recall() -> None:
    assert retrain_due([FIRST], CONFIG) is None, "nothing is live"
    assert retrain_due(days(5), CONFIG) is None
    assert "30 days of events old" in (retrain_due(days(30), CONFIG) or "")
    assert "of the items came after" in (retrain_due(days(5, items_a_day=100), CONFIG) or "")
    assert "lost recall" in (retrain_due(days(5, high=-0.001), CONFIG) or "")
    assert retrain_due(days(2, high=-0.001), CONFIG) is None, "two days are no trend"


def test_the_page_shows_every_release_and_why_it_was_judged_so() -> None:
    page = render(days(3), "it is <old>")
    for text in (
        "full-1",
        "day-3",
        "A full run is due",
        "it is &lt;old&gt;",
        "&lt;few&gt; users",
        "not judged",
        "0.1234",
        "<svg",
    ):
        assert text in page
    assert "http" not in page.replace("http-equiv", "")
