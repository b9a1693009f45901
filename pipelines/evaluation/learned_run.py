"""What a run has learned, as its record and its files say: a view that runs nothing and changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dr_core.arrays import DoubleArray, IntArray
from dr_core.errors import DeepRetrievalError, InputError
from dr_core.evaluation.evaluator import EvaluationUsers, Variant
from dr_core.learning.budget import StructureChoice
from dr_core.learning.checkpoint import load_model
from dr_core.learning.choices import MStepChoice, choose_m_step
from dr_core.paths.length import CostGrowth
from dr_core.paths.space import PathSpace
from pipelines.config.run import RunConfig
from pipelines.evaluation.methods import SUBJECT
from pipelines.evaluation.users import load_users
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

ROUND_FIGURES = (
    "surrogate_before", "surrogate_after_descent", "surrogate_after", "likelihood_before", "likelihood_after", "items_moved", "occupied_paths",
    "largest_path", "validation_recall",
)  # fmt: skip
"""What an M-step's facts say of its round."""


@dataclass(frozen=True)
class LearnedRun:
    """One seed's run in a work folder.

    A mapping, its scores and the model trained on it share a *version* id; a release is a version with a row in the
    table ``releases``.

    Attributes:
        spark: the session that tables are read with.
        config: of the run.
        workdir: where it is.
        run: its record.
        seed: root of its randomness.
        logs, catalogue: as they were given, or None.
        interval: label of the only events that were learned, or None for all.
    """

    spark: SparkSession
    config: RunConfig
    workdir: Workdir
    run: Run
    seed: int
    logs: str | None = None
    catalogue: str | None = None
    interval: str | None = None

    def result(self, stage: str) -> dict[str, Any]:
        """Return what a finished stage returned.

        Raises:
            DeepRetrievalError: the stage has not run.
        """
        for done in self.run.record["stages"]:
            if done["name"] == stage:
                return dict(done["result"])
        raise DeepRetrievalError(f"stage {stage} of {self.run.run_id} has not run")

    def version_id(self, t: int) -> str:
        """Return the id of pi_t, its scores and the model trained on it."""
        return f"{self.run.run_id}-{t}"

    @property
    def warm_id(self) -> str:
        """Id of the warmed-up model."""
        return f"{self.run.run_id}-warm"

    @property
    def last_id(self) -> str:
        """Id of the version that is, or is to be, released."""
        return self.version_id(self.last_version)

    @property
    def last_version(self) -> int:
        """t of the version that is, or is to be, released."""
        return self.config.em.rounds

    @property
    def why_no_controls(self) -> str | None:
        """Why no control can be trained on the run's samples, None where they can."""
        return None

    def has_run(self, stage: str) -> bool:
        """Return whether a stage has been done."""
        return any(done["name"] == stage for done in self.run.record["stages"])

    @cached_property
    def num_items(self) -> int:
        """V."""
        return int(self.data["catalogue_items"])

    @property
    def data(self) -> dict[str, Any]:
        """What the ingest counted."""
        return self.result("preprocess")

    @property
    def m_step(self) -> dict[str, Any]:
        """What the last M-step did."""
        return self.result(f"assign_{self.config.em.rounds}")

    @property
    def kept_config(self) -> RunConfig:
        """The run's configuration, as far as its structure follows it."""
        return self.config

    @property
    def chosen_m_step(self) -> MStepChoice:
        """Which M-step runs for such a structure, and why."""
        config = self.kept_config
        return choose_m_step(config.assignment, self.num_items, self.num_paths, config.structure.normaliser)

    @cached_property
    def choice(self) -> StructureChoice:
        """The layers and the items wanted on a visited path, as chosen after the warm-up; older records name K and D alone."""
        known = self.result("choose")
        older = {
            "nodes": [known["K"]] * known["D"],
            "candidates": self.config.budget.expected_candidates(self.num_items),
        }
        return StructureChoice.from_dict(older | known, self.num_items)

    @cached_property
    def growth(self) -> CostGrowth | None:
        """What searches cost with more and with fewer paths, as the choice measured it; None where it did not."""
        known = self.result("choose").get("growth")
        return CostGrowth(**known | {"measured_at": tuple(known["measured_at"])}) if known else None

    @property
    def space(self) -> PathSpace:
        """The space of the paths."""
        return self.choice.space

    @cached_property
    def counts(self) -> DoubleArray:
        """Training events an item, float64 [V]; held-out users count nowhere."""
        return self.workdir.read_array("models", self.warm_id, "counts.npy").astype(float)

    @cached_property
    def validation(self) -> EvaluationUsers:
        """The validation users."""
        return load_users(self.spark, self.workdir, "validation", self.num_items)

    @cached_property
    def test(self) -> EvaluationUsers:
        """The test users."""
        return load_users(self.spark, self.workdir, "test", self.num_items)

    @cached_property
    def retired(self) -> IntArray:
        """Ids of retired items, which no method may return, int64 ascending."""
        items = self.workdir.read(self.spark, "items").where(~F.col("active") & (F.col("item_id") < self.num_items))
        return np.sort(items.select("item_id").toPandas()["item_id"].to_numpy(np.int64))

    @cached_property
    def learned(self) -> Variant:
        """Deep Retrieval as it is, or is to be, served: the last model, and its mapping without the retired items.

        Raises:
            DeepRetrievalError: the model is not there, or not finished.
        """
        model = load_model(self.workdir.filesystem, self.workdir.path("models", self.last_id))
        return Variant(SUBJECT, model, without_items(self.mapping(self.last_version), self.retired))

    @property
    def num_paths(self) -> int:
        """J."""
        return self.config.paths.paths_per_item

    @property
    def samples_name(self) -> str:
        """The table that defines (x_i, y_i, w_i) after the warm-up."""
        return "mixed_samples" if self.config.mixed_targets.share > 0 else "samples"

    def rounds(self) -> list[dict[str, Any]]:
        """Return the figures of every M-step round, as ``summary.json`` names them."""
        warm = self.result("warm_up")["epochs"]
        rows = []
        for t in range(1, self.config.em.rounds + 1):
            epoch, done = self.result(f"e_step_{t}")["epochs"][-1], self.result(f"assign_{t}")
            softmax = epoch["loss_softmax"] if epoch["loss_softmax"] is not None else warm[-1]["loss_softmax"]
            figures = {name: done.get(name) for name in ROUND_FIGURES}
            rows.append({"round": t, "loss_structure": epoch["loss_structure"], "loss_softmax": softmax, **figures})
        return rows

    def mapping(self, t: int) -> IntArray:
        """Return pi_t, int64 [V, J].

        Raises:
            InputError: it is not there, or no longer.
        """
        if not self.has_mapping(t):
            raise InputError(f"the mapping {self.version_id(t)} is not in {self.workdir.path('models')}")
        return self.workdir.read_array("models", self.version_id(t), "item_paths.npy")

    def version_label(self, t: int) -> str:
        """Return what a version is called in the report."""
        return f"after M-step {t}" if t else "initial"

    def has_mapping(self, t: int) -> bool:
        """Return whether pi_t is there; a version that was not released may have been removed."""
        return self.workdir.exists("models", self.version_id(t), "item_paths.npy")


def without_items(path_VJ: IntArray, items: IntArray) -> IntArray:
    """Return a copy of a mapping in which some items are on no path."""
    reduced = path_VJ.copy()
    reduced[items] = -1
    return reduced
