"""The stages as data: what is derived from them agrees with them, and nothing that is configured escapes them."""

import json
from pathlib import Path

import pytest

from benchmarks.plan_picture import pictures
from dr_core.errors import ConfigError
from pipelines.config.load import validate_config
from pipelines.config.run import RunConfig
from pipelines.flows import plan
from pipelines.flows.refresh import REFRESH
from pipelines.flows.steps import DAY_ONE
from pipelines.storage.schemas import SCHEMAS

ROOT = Path(__file__).parents[3]
PLANS = {"one round": plan.day_one(1), "three rounds": plan.day_one(3), "refresh": plan.refresh()}
FILES = {
    "samples",
    "mixed_samples",
    "refresh_samples",
    "refresh_mixed_samples",
    "models",
    "runs",
    "report",
    "logs",
    "catalogue",
}
MINIMAL = {"name": "tiny", "dataset": {"format": "synthetic"}}


@pytest.mark.parametrize("stages", PLANS.values(), ids=PLANS)
def test_every_stage_needs_what_comes_before_it_and_reads_what_is_there(stages: tuple[plan.Stage, ...]) -> None:
    names = [stage.name for stage in stages]
    assert len(set(names)) == len(names)
    for number, stage in enumerate(stages):
        assert set(stage.needs) <= set(names[:number])
        assert bool(stage.needs) == bool(number), "one stage begins, all others depend on it"
        assert set(stage.reads) | set(stage.writes) <= FILES | set(SCHEMAS)


def test_every_stage_has_a_step_and_a_job() -> None:
    for stage in plan.day_one(2)[:-1]:
        assert stage.step in DAY_ONE
    assert {stage.step for stage in plan.refresh()} == set(REFRESH)
    for stage in [*plan.day_one(2), *plan.refresh()]:
        assert (ROOT / "jobs" / f"{stage.job}.py").is_file()


def test_every_section_is_read_by_a_stage() -> None:
    """A section that no stage claimed could change without anything being done anew."""
    read = {name.partition(".")[0] for stage in [*plan.day_one(1), *plan.refresh()] for name in stage.settings}
    assert read | {"name", "seed", "spark"} == set(RunConfig.model_fields) | {"name", "seed", "spark"}
    learned = {name for stage in plan.day_one(1) for name in stage.settings}
    em = {f"em.{name}" for name in RunConfig.model_fields["em"].annotation.model_fields} - {"em.rounds"}  # type: ignore[union-attr]
    assert em <= learned


def identities(**sections: dict[str, object]) -> dict[str, str]:
    config = validate_config(MINIMAL | sections, "test").model_dump(mode="json")
    return plan.identities(plan.day_one(2), config, "logs:None:0")


CHANGES = {
    "serving.k": ({"serving": {"k": 3}}, {"serving", "publish", "retrieve", "evaluate", "report"}),
    "evaluation": ({"evaluation": {"controls": False}}, {"evaluate", "report"}),
    "the last E-step": ({"em": {"final_epochs": 1}}, {"e_step_final", "index", "serving", "publish", "retrieve", "evaluate", "report"}),
    "the kind of M-step": (
        {"assignment": {"m_step": "descent"}},
        {f"{step}_{t}" for step in ("e_step", "scores", "assign") for t in (1, 2)}
        | {"e_step_final", "index", "serving", "publish", "retrieve", "evaluate", "report"},
    ),
    "the session": ({"spark": {"master": "local[7]"}}, set()),
    "the gates of later days": ({"gates": {"min_users": 1}}, set()),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_setting_reaches_the_stages_that_depend_on_it(change: str) -> None:
    sections, expected = CHANGES[change]
    before, after = identities(), identities(**sections)
    assert {name for name in before if before[name] != after[name]} == expected


def test_another_log_changes_everything() -> None:
    config = validate_config(MINIMAL, "test").model_dump(mode="json")
    one, other = (plan.identities(plan.refresh(), config, logs) for logs in ("a", "b"))
    assert all(one[name] != other[name] for name in one)


def test_what_is_missing_is_named_with_its_job() -> None:
    stages = plan.day_one(2)
    with pytest.raises(ConfigError, match="stage preprocess of run r has not been done: run the job preprocess first"):
        plan.require_earlier(stages, "index", [], "r")
    done = [stage.name for stage in stages if stage.name != "e_step_2"]
    with pytest.raises(ConfigError, match="run the job train_model --round 2 first"):
        plan.require_earlier(stages, "publish", done, "r")
    plan.require_earlier(stages, "publish", [name for name in done if name != "evaluate"] + ["e_step_2"], "r")
    with pytest.raises(ConfigError, match="--from luck: no such stage; choose from preprocess, samples"):
        plan.find_stage(stages, "luck", "--from")


def test_airflow_has_the_plan_as_it_is_today() -> None:
    file = ROOT / "airflow_dags" / "deep_retrieval" / "plan.json"
    assert file.read_text() == plan.as_json(), f"python -m pipelines.flows.plan > {file.relative_to(ROOT)}"
    parts = json.loads(file.read_text())["day_one"]
    jobs = [*parts["before"], *([job, str(t)] for t in (1, 2, 3) for job in parts["round"]), *parts["after"]]
    stages = plan.day_one(3)
    expected = dict.fromkeys((stage.job, None if stage.round is None else str(stage.round)) for stage in stages)
    assert jobs == [list(pair) for pair in expected]


def test_the_pictures_in_the_docs_are_of_todays_plan() -> None:
    for name, picture in pictures().items():
        assert (ROOT / "docs" / name).read_text() == picture, "python -m benchmarks.plan_picture"
