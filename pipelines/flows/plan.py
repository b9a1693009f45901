"""The stages of day one and of a refresh, in order: what each reads, writes and needs, and which job does it.

Everything else that knows an order derives it from here: what a run does next, what a job asks for before it begins,
Airflow's tasks (``airflow_dags/deep_retrieval/plan.json``) and the picture in the documentation.

``python -m pipelines.flows.plan`` prints that JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dr_core.errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """One recorded stage.

    Attributes:
        name: in the run's record.
        step: the function of :mod:`pipelines.flows.steps` or :mod:`pipelines.flows.refresh` that does it.
        job: the file in ``jobs/`` that runs it alone.
        needs: stages whose results it uses; they come earlier.
        settings: sections, or ``section.key``, of the configuration that it reads.
        reads, writes: tables and folders below the work folder.
        round: t of the EM round, where the stage belongs to one; ``warm_up`` or ``final`` of the other trainings.
    """

    name: str
    step: str
    job: str
    needs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    round: int | str | None = None

    @property
    def t(self) -> int:
        """The EM round as a number."""
        if not isinstance(self.round, int):
            raise ValueError(f"stage {self.name} belongs to no EM round")
        return self.round


INGEST_SETTINGS = ("dataset", "preprocess", "split", "serving.history_length")
SAMPLES_SETTINGS = ("samples", "serving.history_length")
MODEL_SETTINGS = ("encoder", "structure", "reranker", "training")
WARM_UP_SETTINGS = ("encoder", "reranker", "training")
SHAPE_SETTINGS = ("budget", "paths")
KIND_OF_M_STEP = ("assignment.m_step", "assignment.refine_items", "assignment.refine_sweeps")
M_STEP_SETTINGS = ("assignment", "penalty", *SHAPE_SETTINGS)
ANSWER_SETTINGS = ("serving.k", "serving.filter_history")
INGESTED = (
    "interactions",
    "items",
    "seen_items",
    "user_histories",
    "evaluation_users",
    "evaluation_histories",
    "intervals",
    "quarantine",
)
ANSWERED_FROM = ("user_histories", "interactions", "seen_items", "items", "models")


def day_one(rounds: int) -> tuple[Stage, ...]:
    """Return day one's stages with T = ``rounds`` EM rounds (Deep Retrieval, section 3)."""
    stages = [
        Stage("preprocess", "preprocess", "preprocess", (), INGEST_SETTINGS, ("logs", "catalogue"), INGESTED),
        Stage("samples", "samples", "samples", ("preprocess",), SAMPLES_SETTINGS, ("interactions",), ("samples",)),
        Stage("count", "count", "samples", ("samples",), (), ("interactions",), ("models",)),
        Stage("warm_up", "warm_up", "train_model", ("count",), (*WARM_UP_SETTINGS, "em.warm_up_epochs"), ("samples",), ("models",), round="warm_up"),
        Stage("choose", "choose", "initialize_paths", ("warm_up",), (*SHAPE_SETTINGS, "structure.normaliser"), ("samples", "models"), ()),
        Stage("initialize", "initialize", "initialize_paths", ("choose",), SHAPE_SETTINGS, ("samples", "models"), ("item_paths",)),
        Stage("targets", "targets", "mix_targets", ("initialize",), ("mixed_targets",), ("samples", "models"), ("mixed_samples",)),
    ]  # fmt: skip
    before = "targets"
    for t in range(1, rounds + 1):
        stages += [
            Stage(f"e_step_{t}", "e_step", "train_model", (before,), ("structure", "training", "em.joint_epochs", "em.e_step_epochs", *KIND_OF_M_STEP), ("mixed_samples", "item_paths"), ("models",), round=t),
            Stage(f"scores_{t}", "scores", "accumulate_scores", (f"e_step_{t}",), ("scores",), ("mixed_samples", "models"), ("path_scores", "item_stats"), round=t),
            Stage(f"assign_{t}", "assign", "assign_paths", (f"scores_{t}",), (*M_STEP_SETTINGS, "em.likelihood_blocks"), ("path_scores", "item_stats", "item_paths"), ("item_paths",), round=t),
        ]  # fmt: skip
        before = f"assign_{t}"
    stages += [
        Stage("e_step_final", "e_step_final", "train_model", (before,), ("structure", "training", "em.final_epochs"), ("mixed_samples", "item_paths"), ("models",), round="final"),
        Stage("index", "index", "build_index", ("e_step_final",), ("health",), ("item_paths", "items"), ("path_items", "models")),
        Stage("serving", "serving", "build_index", ("index",), ("serving",), ("models", "evaluation_histories"), ("models",)),
        Stage("publish", "publish", "publish", ("serving",), ANSWER_SETTINGS, ("models",), ("releases",)),
        Stage("retrieve", "retrieve", "retrieve_batch", ("publish",), ANSWER_SETTINGS, ANSWERED_FROM, ("recommendations",)),
        Stage("evaluate", "evaluate", "evaluate", ("serving",), ("evaluation", *ANSWER_SETTINGS), ("models", "mixed_samples", "evaluation_histories"), ("runs",)),
        Stage("report", "report", "report", ("evaluate",), ("evaluation", "serving"), ("runs",), ("report",)),
    ]  # fmt: skip
    return tuple(stages)


def refresh() -> tuple[Stage, ...]:
    """Return the stages of each day after day one: one warm EM round from the live release."""
    names = ("refresh.joint_epochs", "refresh.learning_rate", "refresh.structure_learning_rate", "training")
    return (
        Stage("ingest", "ingest", "refresh", (), INGEST_SETTINGS, ("logs", "catalogue"), INGESTED),
        Stage("samples", "samples", "refresh", ("ingest",), (*SAMPLES_SETTINGS, "refresh.replay_share"), ("interactions", "user_histories"), ("refresh_samples",)),
        Stage("e_step", "e_step", "refresh", ("samples",), names, ("refresh_samples", "item_paths", "models"), ("models",)),
        Stage("targets", "targets", "refresh", ("e_step",), ("mixed_targets",), ("refresh_samples", "models"), ("refresh_mixed_samples",)),
        Stage("scores", "scores", "refresh", ("targets",), ("scores", "refresh.half_life_days"), ("refresh_mixed_samples", "models", "path_scores"), ("path_scores", "item_stats")),
        Stage("assign", "assign", "refresh", ("scores",), M_STEP_SETTINGS, ("path_scores", "item_stats", "item_paths"), ("item_paths",)),
        Stage("e_step_final", "e_step_final", "refresh", ("assign",), ("refresh.final_epochs", *names), ("refresh_mixed_samples", "item_paths"), ("models",)),
        Stage("index", "index", "refresh", ("e_step_final",), (), ("item_paths", "items"), ("path_items", "models")),
        Stage("gates", "gates", "refresh", ("index",), ("gates", "health", *ANSWER_SETTINGS), ("models", "interactions"), ()),
        Stage("publish", "publish", "refresh", ("gates",), (), ("models",), ("releases",)),
        Stage("retrieve", "retrieve", "refresh", ("publish",), ANSWER_SETTINGS, ANSWERED_FROM, ("recommendations",)),
    )  # fmt: skip


def identities(stages: Iterable[Stage], config: Mapping[str, Any], inputs: str) -> dict[str, str]:
    """Return what each stage's result depends on, as a hash: its settings, and those of all stages that it needs.

    Args:
        stages: in order.
        config: a :class:`pipelines.config.run.RunConfig` as plain data.
        inputs: what the first stage reads beside its settings: logs, catalogue, interval and seed.
    """
    known: dict[str, str] = {}
    for stage in stages:
        settings = {name: _setting(config, name) for name in stage.settings}
        parts = [settings, [known[name] for name in stage.needs] or inputs, stage.step, stage.round]
        known[stage.name] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
    return known


def _setting(config: Mapping[str, Any], name: str) -> Any:
    section, _, key = name.partition(".")
    return config[section][key] if key else config[section]


def find_stage(stages: Sequence[Stage], name: str, option: str) -> Stage:
    """Return a stage by name.

    Raises:
        ConfigError: there is none; the message names ``option`` and the stages there are.
    """
    for stage in stages:
        if stage.name == name:
            return stage
    raise ConfigError(f"{option} {name}: no such stage; choose from {', '.join(stage.name for stage in stages)}")


def require_earlier(stages: Sequence[Stage], name: str, done: Iterable[str], run_id: str) -> None:
    """Check that every stage that another one needs is done, and those that they need.

    Raises:
        ConfigError: names the first that is missing and the job that does it.
    """
    by_name = {stage.name: stage for stage in stages}
    wanted, needed = [*by_name[name].needs], set[str]()
    while wanted:
        needed.add(wanted[-1])
        wanted += by_name[wanted.pop()].needs
    done = set(done)
    for stage in stages:
        if stage.name in needed and stage.name not in done:
            raise ConfigError(
                f"stage {stage.name} of run {run_id} has not been done: run the job {command(stage)} first"
            )


def command(stage: Stage) -> str:
    """Return the job that does a stage, with the word that tells it from the job's other stages."""
    if stage.job == "refresh":
        return f"refresh --stage {stage.name}"
    return stage.job if stage.round is None else f"{stage.job} --round {stage.round}"


def as_json() -> str:
    """Return the jobs in order, for programs that cannot import this package.

    Day one's jobs are ``before``, those of each EM ``round``, and ``after``.
    """
    first, second = day_one(1), day_one(2)
    rounds = [stage for stage in second if stage.round == 2]
    begin = next(number for number, stage in enumerate(first) if stage.round == 1)
    document = {
        "day_one": {
            "before": _jobs(first[:begin]),
            "round": list(dict.fromkeys(stage.job for stage in rounds)),
            "after": _jobs(first[begin + len(rounds) :]),
        },
        "refresh": [stage.name for stage in refresh()],
        "training": {
            "jobs": sorted({stage.job for stage in second if stage.step in TRAINING_STEPS}),
            "stages": [stage.name for stage in refresh() if stage.step in TRAINING_STEPS],
        },
    }
    return json.dumps(document, indent=2) + "\n"


TRAINING_STEPS = ("warm_up", "e_step", "e_step_final")


def _jobs(stages: Iterable[Stage]) -> list[list[str | None]]:
    return [list(pair) for pair in dict.fromkeys((stage.job, stage.round) for stage in stages)]  # type: ignore[arg-type]


if __name__ == "__main__":
    print(as_json(), end="")
