"""What a refresh has learned: a run whose structure, paths and scores are those of the release it started from."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

from pyspark.sql import DataFrame

from dr_core.arrays import DoubleArray
from dr_core.learning.budget import StructureChoice, keep_structure
from dr_core.learning.checkpoint import read_manifest, structure_config
from dr_core.paths.space import PathSpace
from pipelines.config.run import RunConfig
from pipelines.evaluation.learned_run import ROUND_FIGURES, LearnedRun
from pipelines.stages.ingest.interval import Interval
from pipelines.storage.releases import Release, list_releases

SAMPLES, MIXED = "refresh_samples", "refresh_mixed_samples"


def seed_of(root: int, interval: Interval) -> int:
    """Return an interval's seed: another one each day, the same for the same day."""
    return root + int(hashlib.sha256(interval.label.encode()).hexdigest()[:6], 16)


class RefreshedRun(LearnedRun):
    """One refresh; ``<run>-0`` is trained on the base's paths, ``<run>-1`` on the new ones."""

    @property
    def parent(self) -> str:
        """Id of the release that was live when this run began, and that it takes the place of."""
        return str(self.run.record["parent"])

    @cached_property
    def parent_release(self) -> Release:
        """The release that was live when this run began."""
        return next(row for row in list_releases(self.workdir) if row.release_id == self.parent)

    @property
    def base(self) -> str:
        """Id of the release that is learned on: the parent, or an ancestor of it that has not learned the interval yet."""
        return str(self.run.record.get("base", self.parent))

    @cached_property
    def base_release(self) -> Release:
        """The release that is learned on."""
        return next(row for row in list_releases(self.workdir) if row.release_id == self.base)

    @property
    def warm_id(self) -> str:
        """Id of the model trained on the base's paths."""
        return self.version_id(0)

    @property
    def last_version(self) -> int:
        """The new paths, scores, index and model."""
        return 1

    def version_label(self, t: int) -> str:
        """Return what a version is called in the report."""
        return "after the refresh" if t else "before the refresh"

    @property
    def why_no_controls(self) -> str:
        """A refresh learns from a part of the events, a control would need them all."""
        return f"{self.run.run_id} is a refresh: its samples hold one interval, a control needs all of them"

    @cached_property
    def kept_config(self) -> RunConfig:
        """The run's configuration, with the structure model that the base was built with, where that is there."""
        manifest = read_manifest(self.workdir.filesystem, self.workdir.path("models", self.base))
        return (
            self.config
            if manifest is None
            else self.config.model_copy(update={"structure": structure_config(manifest)})
        )

    @cached_property
    def choice(self) -> StructureChoice:
        """The parent's paths, and as many candidates as day one chose for the recall that was asked for, or as are asked for."""
        budget = self.config.budget
        candidates = budget.expected_candidates(self.num_items)
        if budget.recall is not None:
            candidates = self._day_one()["candidates"]
        return keep_structure(self.kept_config, self.num_items, self.num_paths, self.space, candidates)

    def _day_one(self) -> dict[str, Any]:
        """Return what the first of this release's ancestors chose."""
        release_id = self.base
        while True:
            record = json.loads(self.workdir.read_text("runs", f"{release_id.rsplit('-', 1)[0]}.json"))
            for stage in record["stages"]:
                if stage["name"] == "choose":
                    return dict(stage["result"])
            release_id = record.get("base", record["parent"])

    @property
    def space(self) -> PathSpace:
        """The space of the parent's paths."""
        return self.parent_release.space

    @property
    def num_paths(self) -> int:
        """J of the parent."""
        return self.parent_release.J

    @property
    def data(self) -> dict[str, Any]:
        """What the interval's ingest counted."""
        return self.result("ingest")

    @property
    def m_step(self) -> dict[str, Any]:
        """What the M-step did."""
        return self.result("assign")

    def rounds(self) -> list[dict[str, Any]]:
        """Return the figures of the one round; what a refresh does not measure is None."""
        epoch, done = self.result("e_step")["epochs"][-1], self.m_step
        figures = {name: done.get(name) for name in ROUND_FIGURES}
        losses = {name: epoch[name] for name in ("loss_structure", "loss_softmax")}
        return [{"round": 1, **losses, **figures}]

    @property
    def counts(self) -> DoubleArray:
        """Training events an item, float64 [V]."""
        return self.workdir.read_array("models", self.last_id, "counts.npy").astype(float)

    @property
    def samples_name(self) -> str:
        """The table that defines (x_i, y_i, w_i) after the first E-step; the next refresh replaces it."""
        return MIXED if self.config.mixed_targets.share > 0 else SAMPLES

    @property
    def labels(self) -> list[str]:
        """The intervals that are learned."""
        return list(self.data["labels"])

    @property
    def active(self) -> DataFrame:
        """item_id of the items that are not retired."""
        return self.workdir.read(self.spark, "items").where("active").select("item_id")
