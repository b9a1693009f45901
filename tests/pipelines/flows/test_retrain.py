"""The rule for when a full run is due, on releases made up."""

from pipelines.config.run import RunConfig
from pipelines.flows.retrain import retrain_due
from tests.pipelines.report.releases_made_up import FIRST, days

CONFIG = RunConfig.model_validate({"name": "world", "dataset": {}})


def test_a_full_run_is_due_by_age_new_items_or_lost_recall() -> None:
    assert retrain_due([FIRST], CONFIG) is None, "nothing is live"
    assert retrain_due(days(5), CONFIG) is None
    assert "30 days of events old" in (retrain_due(days(30), CONFIG) or "")
    assert "of the items came after" in (retrain_due(days(5, items_a_day=100), CONFIG) or "")
    assert "lost recall" in (retrain_due(days(5, high=-0.001), CONFIG) or "")
    assert retrain_due(days(2, high=-0.001), CONFIG) is None, "two days are no trend"
