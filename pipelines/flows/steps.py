"""Day one: from logs to a release, by EM over the structure (Deep Retrieval, section 3).

preprocess -> samples -> warm-up -> initial paths -> mixed targets -> T x (E-step, scores, M-step) -> last E-step -> index.
Each stage is recorded, so the same command goes on where a killed one stopped. ``<run>-<t>`` names the mapping pi_t,
its scores and the model that was trained on it; the last one is the release.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import SparkSession

from dr_core.errors import DeepRetrievalError, GateRefused
from dr_core.evaluation.evaluator import EvaluationUsers
from dr_core.evaluation.metrics import candidate_recall
from dr_core.item_lists import ItemLists
from dr_core.learning.alpha import alpha_rule
from dr_core.learning.budget import StructureChoice, choose_structure
from dr_core.learning.checkpoint import load_model, read_manifest
from dr_core.learning.refine import refined
from dr_core.learning.trainer import EpochResult, Phase
from dr_core.model.histories import encode_histories
from dr_core.paths.assignment import changed_rows
from dr_core.paths.health import check_health, measure_health
from dr_core.paths.index import build_index as invert
from dr_core.retrieval.beam_search import beam_search
from dr_core.retrieval.from_model import model_retriever
from pipelines.config.run import RunConfig
from pipelines.evaluation.users import load_users
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.preprocess import preprocess
from pipelines.stages.ingest.split import training_interactions
from pipelines.stages.structure.assign import assign_paths
from pipelines.stages.structure.index import build_index
from pipelines.stages.structure.initialize import initialize_paths, sample_states
from pipelines.stages.structure.scores import FrozenModel, accumulate_scores, measure_likelihood
from pipelines.stages.training.mixed_targets import mix_targets
from pipelines.stages.training.samples import samples
from pipelines.stages.training.train import TrainJob, train_model
from pipelines.storage.item_paths import read_paths, write_paths
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
VALIDATION_TARGETS = 16


def run_identity(
    config: RunConfig, logs: str | None, catalogue: str | None, seed: int, interval: Interval | None = None
) -> str:
    """Return the run id that the same inputs always give."""
    text = f"{config.identity()}:{logs}:{catalogue}:{seed}" + (f":{interval.label}" if interval else "")
    return f"{config.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


@dataclass
class DayOne:
    """The stages of one seed in one work folder; each method is a stage and may be called again."""

    spark: SparkSession
    config: RunConfig
    workdir: Workdir
    run: Run
    seed: int
    logs: str | None = None
    catalogue: str | None = None
    interval: Interval | None = None

    def learn(self) -> str:
        """Run every stage up to the index and return the id of the learned release."""
        stage = self.run.stage
        stage("preprocess", self.preprocess)
        stage("samples", self.samples)
        stage("choose", self.choose)
        stage("warm_up", self.warm_up)
        stage("initialize", self.initialize)
        stage("targets", self.targets)
        for t in range(1, self.config.em.rounds + 1):
            stage(f"e_step_{t}", lambda t=t: self.e_step(t - 1))
            stage(f"scores_{t}", lambda t=t: self.scores(t))
            stage(f"assign_{t}", lambda t=t: self.assign(t))
        stage("e_step_final", lambda: self.e_step(self.config.em.rounds))
        stage("index", self.index)
        return self.release_id(self.config.em.rounds)

    def release_id(self, t: int) -> str:
        """Return the id of pi_t, its scores and its model."""
        return f"{self.run.run_id}-{t}"

    @property
    def warm_id(self) -> str:
        """Id of the warmed-up model."""
        return f"{self.run.run_id}-warm"

    def result(self, name: str) -> dict[str, Any]:
        """Return what a finished stage returned."""
        for stage in self.run.record["stages"]:
            if stage["name"] == name:
                return dict(stage["result"])
        raise DeepRetrievalError(f"stage {name} of {self.run.run_id} has not run")

    @cached_property
    def num_items(self) -> int:
        """V."""
        return int(self.result("preprocess")["catalogue_items"])

    @cached_property
    def choice(self) -> StructureChoice:
        """K and the items wanted on a visited path."""
        return choose_structure(self.config, self.num_items, self.config.paths.paths_per_item)

    @cached_property
    def counts(self) -> npt.NDArray[np.float64]:
        """Training events an item, float64 [V]; held-out users count nowhere."""
        return self.workdir.read_array("models", self.warm_id, "counts.npy").astype(np.float64)

    @cached_property
    def validation(self) -> EvaluationUsers:
        """The validation users."""
        return load_users(self.spark, self.workdir, "validation")

    @property
    def samples_name(self) -> str:
        """The table that defines (x_i, y_i, w_i) after the warm-up."""
        return "mixed_samples" if self.config.mixed_targets.share > 0 else "samples"

    def preprocess(self) -> dict[str, Any]:
        """Logs to interactions, items, histories, quarantine and the split."""
        config = self.config
        summary = preprocess(
            self.spark,
            self.workdir,
            config.dataset,
            config.preprocess,
            config.split,
            run_id=self.run.run_id,
            interval=self.interval,
            logs=self.logs,
            catalogue=self.catalogue,
            seed=self.seed,
        )
        return {**summary.as_dict(), "rows_out": summary.kept}

    def samples(self) -> dict[str, Any]:
        """Interactions of training users to (x_i, y_i, w_i)."""
        summary = samples(self.spark, self.workdir, self.config.samples, seed=self.seed)
        return {**summary.as_dict(), "rows_in": self.result("preprocess")["kept"], "rows_out": summary.rows}

    def choose(self) -> dict[str, Any]:
        """Choose K, count the items' training events, write the validation batch."""
        events = training_interactions(self.spark, self.workdir).groupBy("item_id").count().toPandas()
        counts = np.zeros(self.num_items)
        counts[events["item_id"].to_numpy()] = events["count"].to_numpy()
        self.workdir.write_array(counts, "models", self.warm_id, "counts.npy")
        self._write_validation_batch()
        for reason in self.choice.reasons:
            logger.info("  %s", reason)
        space = self.choice.space
        return {
            "K": space.num_nodes,
            "D": space.num_layers,
            "items_per_visited_path": self.choice.items_per_visited_path,
            "reasons": list(self.choice.reasons),
        }

    def _write_validation_batch(self) -> None:
        users = self.validation
        length = self.config.history_length
        history = np.full((len(users), length), -1, np.int32)
        targets = np.full((len(users), VALIDATION_TARGETS), -1, np.int32)
        for row, (items, truth) in enumerate(zip(users.histories, users.truths, strict=True)):
            recent = items[-length:]
            history[row, : len(recent)] = recent
            wanted = truth[:VALIDATION_TARGETS]
            targets[row, : len(wanted)] = wanted
        lengths = (history >= 0).sum(1)
        columns = {
            "history": history,
            "length": lengths,
            "positions": np.maximum(lengths - 1, 0)[:, None],
            "targets": targets,
            "weights": (targets >= 0).astype(np.float32),
            "context_categorical": np.zeros((len(users), 1), np.int64),
            "context_numeric": np.zeros((len(users), 1), np.float32),
        }
        self.workdir.write_arrays(columns, "models", self.warm_id, "validation.npz")

    def _job(self, model_id: str, phases: list[Phase], **more: Any) -> TrainJob:
        config = self.config
        return TrainJob(
            workdir=self.workdir.uri,
            samples=more.pop("samples", f"tables/{self.samples_name}"),
            model_id=model_id,
            phases=tuple(phases),
            seed=self.seed,
            num_nodes=self.choice.space.num_nodes,
            num_layers=self.choice.space.num_layers,
            encoder=config.encoder,
            structure=config.structure,
            reranker=config.reranker,
            training=config.training,
            counts_file=f"models/{self.warm_id}/counts.npy",
            **more,
        )

    def warm_up(self) -> dict[str, Any]:
        """Encoder and softmax alone."""
        phase = Phase("warm_up", "warm_up", self.config.em.warm_up_epochs)
        validation = f"models/{self.warm_id}/validation.npz" if len(self.validation) else None
        job = self._job(
            self.warm_id,
            [phase],
            samples="tables/samples",
            validation_file=validation,
            validation_k=self.config.evaluation.k[0],
            validation_filtered=self.config.evaluation.filter_history,
        )
        return self._trained(train_model(job), self.result("samples")["rows"])

    def initialize(self) -> dict[str, Any]:
        """pi_0."""
        initialize_paths(
            self.spark,
            self.workdir,
            model_id=self.warm_id,
            samples="samples",
            release_id=self.release_id(0),
            space=self.choice.space,
            config=self.config.paths,
            budgets=self.choice.budgets,
            seed=self.seed,
        )
        mapping = self.export_paths(0)
        return {"rows_in": len(mapping), "rows_out": mapping.size}

    def targets(self) -> dict[str, Any]:
        """Samples with targets drawn from the softmax."""
        if self.config.mixed_targets.share == 0:
            rows = self.result("samples")["rows"]
            return {"rows_in": rows, "rows_out": rows}
        groups = self.export_paths(0)[:, 0]
        return mix_targets(
            self.spark,
            self.workdir,
            samples="samples",
            name=self.samples_name,
            model_id=self.warm_id,
            groups_uri=self.workdir.write_array(groups, "models", self.warm_id, "groups.npy"),
            config=self.config.mixed_targets,
            seed=self.seed,
        )

    def export_paths(self, t: int) -> npt.NDArray[np.int64]:
        """Write pi_t beside the model that is trained on it, and return it."""
        mapping = read_paths(self.spark, self.workdir, self.release_id(t))
        if len(mapping) != self.num_items or (mapping < 0).any():
            raise DeepRetrievalError(
                f"item_paths of {self.release_id(t)} lack paths for some of {self.num_items} items"
            )
        self.workdir.write_array(mapping, "models", self.release_id(t), "item_paths.npy")
        return mapping

    def e_step(self, t: int) -> dict[str, Any]:
        """Fit the model to pi_t."""
        em = self.config.em
        last = t == em.rounds
        phases = []
        if t == 0 and em.joint_epochs:
            phases.append(Phase("joint", "joint", em.joint_epochs))
        phases.append(
            Phase(f"e_step_{'final' if last else t + 1}", "frozen", em.final_epochs if last else em.e_step_epochs)
        )
        job = self._job(
            self.release_id(t),
            phases,
            paths_file=f"models/{self.release_id(t)}/item_paths.npy",
            start_from=self.release_id(t - 1) if t else self.warm_id,
        )
        return self._trained(train_model(job), self.result("samples")["rows"])

    @staticmethod
    def _trained(results: list[EpochResult], rows: int) -> dict[str, Any]:
        return {"rows_in": rows, "rows_out": rows, "epochs": [vars(result) for result in results]}

    def frozen_model(self, t: int) -> FrozenModel:
        """Return the model trained on pi_t."""
        folder = self.workdir.path("models", self.release_id(t))
        manifest = read_manifest(self.workdir.filesystem, folder)
        if manifest is None:
            raise DeepRetrievalError(f"{folder} holds no finished model")
        return FrozenModel(folder, manifest["sha256"]["model.safetensors"], f"{folder}/item_paths.npy")

    def scores(self, t: int) -> dict[str, Any]:
        """s[v, c] and N_v under the model of pi_{t-1}."""
        return accumulate_scores(
            self.spark,
            self.workdir,
            samples=self.samples_name,
            model=self.frozen_model(t - 1),
            release_id=self.release_id(t),
            config=self.config.scores,
        )

    def assign(self, t: int) -> dict[str, Any]:
        """pi_{t-1} to pi_t, with what it did to the surrogate, the likelihood and the recall of the validation users."""
        model = load_model(self.workdir.filesystem, self.workdir.path("models", self.release_id(t - 1)))
        users = self.validation
        state_UE = encode_histories(model, users.histories, self.config.history_length)
        visited = beam_search(model.structure, state_UE, self.config.budget.beam).path_NB.numpy()
        rule = alpha_rule(self.config, self.choice)
        if t > 1 and rule.alpha is None:
            rule = rule.starting_at(self.result(f"assign_{t - 1}")["alpha"])
        summary = assign_paths(
            self.spark,
            self.workdir,
            release_id=self.release_id(t),
            parent_id=self.release_id(t - 1),
            num_items=self.num_items,
            num_paths=self.config.paths.paths_per_item,
            space=self.choice.space,
            config=self.config.assignment,
            rule=rule,
            visited_paths=visited,
        )
        descended = read_paths(self.spark, self.workdir, self.release_id(t))
        parent = self.workdir.read_array("models", self.release_id(t - 1), "item_paths.npy")
        mapping = refined(
            model,
            sample_states(self.workdir, "samples", model, self.config.paths.profile_states),
            descended,
            parent,
            self.choice.space,
            self.config.assignment,
            budgets=self.choice.budgets,
            seed=self.seed + t,
        )
        items_refined = int((mapping != descended).any(axis=1).sum())
        if items_refined:
            write_paths(self.spark, self.workdir, mapping, self.release_id(t))
        mapping = self.export_paths(t)
        moved = int(changed_rows(parent, mapping).sum())
        health = measure_health(mapping, self.choice.space)
        before, after = measure_likelihood(
            self.spark,
            self.workdir,
            samples=self.samples_name,
            model=self.frozen_model(t - 1),
            paths_uris=[self.workdir.path("models", self.release_id(place), "item_paths.npy") for place in (t - 1, t)],
            max_blocks=self.config.em.likelihood_blocks,
        )
        logger.info(
            "  %d items moved (%d by the descent), surrogate %.6g -> %.6g, likelihood %.4f -> %.4f, %d paths, largest %d,"
            " alpha %.3g",
            moved, summary.items_moved, summary.surrogate_before, summary.surrogate_after, before, after,
            health.occupied_paths, health.largest_path, summary.alpha,
        )  # fmt: skip
        retriever = model_retriever(
            model, invert(np.arange(self.num_items), mapping), beam=self.config.budget.beam, max_length=1
        )
        found = retriever.candidates(retriever.search(state_UE.numpy()))
        recall = candidate_recall(ItemLists(found.offsets, found.item_ids), ItemLists.from_rows(users.truths))
        return {
            **vars(summary),
            "items_moved": moved,
            "items_descended": summary.items_moved,
            "items_refined": items_refined,
            "rows_in": self.num_items,
            "rows_out": int(mapping.size),
            "likelihood_before": before,
            "likelihood_after": after,
            "occupied_paths": health.occupied_paths,
            "largest_path": health.largest_path,
            "validation_recall": float(np.nanmean(recall)) if len(users) else None,
        }

    def index(self) -> dict[str, Any]:
        """The inverted index of the last mapping, after the health gate."""
        mapping = self.export_paths(self.config.em.rounds)
        health = measure_health(mapping, self.choice.space)
        problems = check_health(health, self.config.health, self.num_items)
        if problems:
            raise GateRefused("the structure is not healthy: " + "; ".join(problems))
        return build_index(self.spark, self.workdir, release_id=self.release_id(self.config.em.rounds))

    def rounds(self) -> list[dict[str, Any]]:
        """Return the figures of every M-step round, as summary.json names them."""
        warm = self.result("warm_up")["epochs"]
        rows = []
        for t in range(1, self.config.em.rounds + 1):
            epoch = self.result(f"e_step_{t}")["epochs"][-1]
            done = self.result(f"assign_{t}")
            rows.append(
                {
                    "round": t,
                    "loss_structure": epoch["loss_structure"],
                    "loss_softmax": epoch["loss_softmax"] if epoch["loss_softmax"] is not None else warm[-1]["loss_softmax"],
                    **{
                        key: done[key]
                        for key in (
                            "surrogate_before", "surrogate_after", "likelihood_before", "likelihood_after",
                            "items_moved", "occupied_paths", "largest_path", "validation_recall",
                        )
                    },
                }
            )  # fmt: skip
        return rows
