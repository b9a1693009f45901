"""``dr refresh``: each day after day one, from yesterday's log to a judged and published release.

ingest -> samples -> E-step (joint, warm) -> mixed targets -> scores (merged into the live ones) -> M-step -> last E-step
-> index -> gates -> publish -> recommendations. The unit of learning is every interval that the live release and its
ancestors have not learned: normally [live.interval_end, T1), after a refused day both days, after a rollback those of the
release that was left. Everything starts from the live release's model, paths and scores, never from a refused one.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import ConfigError, DeepRetrievalError, GateRefused, InputError
from dr_core.learning.alpha import AlphaRule
from dr_core.learning.budget import choose_structure
from dr_core.learning.checkpoint import load_model, read_manifest, structure_config
from dr_core.learning.trainer import Phase
from dr_core.paths.health import measure_health
from dr_core.paths.index import build_index as invert
from dr_core.paths.space import PathSpace
from dr_core.retrieval.beam_search import beam_search
from dr_core.retrieval.retriever import Retriever
from pipelines.config.run import RunConfig
from pipelines.evaluation.users import load_users
from pipelines.flows.gates import (
    Verdict,
    fixed_users,
    judge_data,
    judge_health,
    judge_integrity,
    judge_quality,
    measure_quality,
    refusals,
)
from pipelines.report.releases_page import write_trends
from pipelines.serving.batch import retrieve_all
from pipelines.spark.session import spark_session
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.preprocess import preprocess
from pipelines.stages.ingest.split import training_interactions
from pipelines.stages.structure.assign import assign_paths
from pipelines.stages.structure.index import build_index
from pipelines.stages.structure.scores import Carried, FrozenModel, accumulate_scores
from pipelines.stages.training.mixed_targets import mix_targets
from pipelines.stages.training.samples import samples
from pipelines.stages.training.train import TrainJob, train_model
from pipelines.storage.item_paths import read_paths
from pipelines.storage.lease import lease
from pipelines.storage.releases import Release, ancestry, learned_intervals, list_releases, live_release, publish
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
SAMPLES, MIXED = "refresh_samples", "refresh_mixed_samples"
SAMPLES_OWNER = "refresh_samples.owner"
STAGES = (
    "ingest", "samples", "e_step", "targets", "scores", "assign", "e_step_final", "index", "gates", "publish", "retrieve",
)  # fmt: skip


def refresh_identity(config: RunConfig, logs: str | None, interval: Interval) -> str:
    """Return the run id that the same interval, log and configuration always give."""
    later = json.dumps([config.refresh.model_dump(mode="json"), config.gates.model_dump(mode="json")], sort_keys=True)
    text = f"{config.identity()}:{later}:{logs}:{interval.label}"
    return f"{config.name}-{interval.start:%Y%m%dT%H%M}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def run_refresh(
    config: RunConfig,
    workdir_uri: str,
    interval: Interval,
    *,
    logs: str | None = None,
    catalogue: str | None = None,
    only: str | None = None,
    run_id: str | None = None,
) -> dict[str, Any]:
    """Ingest an interval, learn what the live release has not learned, judge it and publish it.

    The same interval again changes nothing once it was published; one that was refused is done anew, since its log may
    have been mended. A killed one goes on where it stopped, unless another release went live meanwhile.

    Args:
        config: of the live release.
        workdir_uri: W.
        interval: [T0, T1).
        logs: overrides the configured path of the log.
        catalogue: overrides the configured path of the catalogue.
        only: one of ``STAGES``; by default all.
        run_id: names the record; by default it follows from the configuration, the log and the interval.

    Returns:
        run_id, release_id, parent_release, status, gates, stages and the counts of the interval.

    Raises:
        ConfigError: nothing is live, the live release has another structure, or an earlier stage has not been done.
        InputError: the log lacks a time.
        GateRefused: a gate refused; the candidate is kept with its reasons, the live release stays.
        PublishConflict: another release went live meanwhile.
        TryAgain: another run holds the folder.
    """
    workdir = Workdir(workdir_uri)
    workdir.filesystem.makedirs(workdir.path("runs"), exist_ok=True)
    name = f"dr refresh {config.name}"
    with (
        lease(workdir, "run"),
        spark_session(name, master=config.spark.master, conf=config.spark.conf) as spark,
    ):
        run = Run(workdir, run_id or refresh_identity(config, logs, interval), config.identity())
        return Refresh(spark, config, workdir, run, interval, logs, catalogue).execute(only)


@dataclass
class Refresh:
    """The stages of one refresh; each method named in ``STAGES`` is a stage and may be called again."""

    spark: SparkSession
    config: RunConfig
    workdir: Workdir
    run: Run
    interval: Interval
    logs: str | None = None
    catalogue: str | None = None

    def execute(self, only: str | None = None) -> dict[str, Any]:
        """Run all stages, or one, under the record's verdict."""
        if self.run.finished:
            logger.info("run %s is finished; the same interval again changes nothing", self.run.run_id)
            return self.summary()
        try:
            self.begin()
            for name in STAGES if only is None else (only,):
                self._require_earlier(name)
                self.run.stage(name, self.stage(name))
        except BaseException as error:
            self.run.fail(error)
            raise
        if only in (None, STAGES[-1]):
            write_trends(self.spark, self.workdir, self.config)
            self.run.finish("done", 0)
        return self.summary()

    def _require_earlier(self, name: str) -> None:
        done = {stage["name"] for stage in self.run.record["stages"]}
        missing = [earlier for earlier in STAGES[: STAGES.index(name)] if earlier not in done]
        if missing:
            raise ConfigError(
                f"stage {missing[0]} of {self.run.run_id} has not been done from live release {self.parent}: do it first"
            )

    def stage(self, name: str) -> Callable[[], dict[str, Any]]:
        """Return a stage's work."""
        work: Callable[[], dict[str, Any]] = getattr(self, name)
        return work

    def begin(self) -> None:
        """Find the live release and note it as this run's parent; forget the stages of a refused or overtaken try.

        Raises:
            ConfigError: nothing is live yet, or the live release has another structure.
        """
        live = live_release(self.spark, self.workdir)
        if live is None:
            raise ConfigError(f"{self.workdir.uri} has no live release to start from: `dr run` makes the first")
        record = self.run.record
        if record.get("interval", self.interval.label) != self.interval.label:
            raise ConfigError(f"run {self.run.run_id} is of {record['interval']}: give this interval another --run-id")
        is_own = live.release_id == self.release_id
        if not is_own:
            self._refuse_other_structure(live)
            is_overtaken = record.get("parent") not in (None, live.release_id) or self._lost_its_samples()
            if record["status"] == "refused" or is_overtaken or record["config_hash"] != self.config.identity():
                record["stages"] = []
        record |= {
            "status": "running",
            "exit_code": None,
            "message": "",
            "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "config_hash": self.config.identity(),
            "parent": live.parent_release if is_own else live.release_id,
            "interval": self.interval.label,
            "config": self.config.model_dump(mode="json"),
            "logs": self.logs,
            "catalogue": self.catalogue,
            "seed": self.config.seed,
        }
        self.run.save()

    def _lost_its_samples(self) -> bool:
        """Whether another refresh has drawn samples since this one did; all share one table."""
        if not any(stage["name"] == "samples" for stage in self.run.record["stages"]):
            return False
        return self.workdir.read_text("runs", SAMPLES_OWNER) != self.run.run_id

    def _refuse_other_structure(self, live: Release) -> None:
        manifest = self._manifest(live.release_id)
        wanted = {
            "paths.num_layers": (self.config.paths.num_layers, live.D),
            "paths.paths_per_item": (self.config.paths.paths_per_item, live.J),
            "encoder": (self.config.encoder.model_dump(mode="json"), manifest["encoder"]),
        }
        if self.config.paths.num_nodes != "auto":
            wanted["paths.num_nodes"] = (self.config.paths.num_nodes, live.K)
        for key, (asked, there) in wanted.items():
            if json.loads(json.dumps(asked)) != json.loads(json.dumps(there)):
                raise ConfigError(
                    f"{key}: the configuration says {asked}, live release {live.release_id} was built with {there}:"
                    " a refresh keeps the structure; `dr run --fresh` starts anew"
                )

    def _manifest(self, model_id: str) -> dict[str, Any]:
        manifest = read_manifest(self.workdir.filesystem, self.workdir.path("models", model_id))
        if manifest is None:
            raise InputError(f"{self.workdir.uri} holds no finished model {model_id}: roll back, or run anew")
        return manifest

    @property
    def parent(self) -> str:
        """Id of the release this run starts from."""
        return str(self.run.record["parent"])

    @cached_property
    def parent_release(self) -> Release:
        """The release this run starts from."""
        return next(row for row in list_releases(self.spark, self.workdir) if row.release_id == self.parent)

    @property
    def warm_id(self) -> str:
        """Id of the model trained on the parent's paths."""
        return f"{self.run.run_id}-0"

    @property
    def release_id(self) -> str:
        """Id of the new paths, scores, index and model."""
        return f"{self.run.run_id}-1"

    @cached_property
    def space(self) -> PathSpace:
        """K and D of the live release."""
        return PathSpace(self.parent_release.K, self.parent_release.D)

    @cached_property
    def num_items(self) -> int:
        """V, rows of the items table."""
        return int(self.result("ingest")["catalogue_items"])

    @property
    def active(self) -> DataFrame:
        """item_id of the items that are not retired."""
        return self.workdir.read(self.spark, "items").where("active").select("item_id")

    @cached_property
    def seed(self) -> int:
        """Another one each day, the same for the same day."""
        return self.config.seed + int(hashlib.sha256(self.interval.label.encode()).hexdigest()[:6], 16)

    def result(self, name: str) -> dict[str, Any]:
        """Return what a finished stage returned."""
        for stage in self.run.record["stages"]:
            if stage["name"] == name:
                return dict(stage["result"])
        raise DeepRetrievalError(f"stage {name} of {self.run.run_id} has not run")

    def ingest(self) -> dict[str, Any]:
        """The interval's log, cleaned and appended once; what is to be learned."""
        summary = preprocess(
            self.spark,
            self.workdir,
            self.config.dataset,
            self.config.preprocess,
            self.config.split,
            run_id=self.run.run_id,
            interval=self.interval,
            logs=self.logs,
            catalogue=self.catalogue,
            seed=self.config.seed,
        )
        releases = list_releases(self.spark, self.workdir)
        learned = learned_intervals(releases, self.parent_release)
        ledger = self.workdir.read(self.spark, "intervals").where("kept > 0").select("source_interval").collect()
        labels = sorted(row[0] for row in ledger if row[0] not in learned and row[0] != "all")
        logger.info("  %d kept, %d late, learning %d interval(s)", summary.kept, summary.late, len(labels))
        return {**summary.as_dict(), "rows_out": summary.kept, "labels": labels}

    @property
    def labels(self) -> list[str]:
        """The intervals to learn."""
        return list(self.result("ingest")["labels"])

    def samples(self) -> dict[str, Any]:
        """(x_i, y_i, w_i) of what is new, and a replay share of what is old."""
        self.workdir.write_text(self.run.run_id, "runs", SAMPLES_OWNER)
        new = (
            training_interactions(self.spark, self.workdir)
            .where(F.col("source_interval").isin(*self.labels))
            .groupBy("item_id")
            .count()
            .toPandas()
        )
        old = self.workdir.read_array("models", self.parent, "counts.npy")
        counts = np.zeros(self.num_items)
        counts[: len(old)] = old
        counts[new["item_id"].to_numpy()] += new["count"].to_numpy()
        self.workdir.write_array(counts, "models", self.warm_id, "counts.npy")
        summary = samples(
            self.spark,
            self.workdir,
            self.config.samples,
            seed=self.seed,
            labels=self.labels,
            replay_share=self.config.refresh.replay_share,
            name=SAMPLES,
        )
        return {**summary.as_dict(), "rows_in": int(new["count"].sum()), "rows_out": summary.rows}

    def _paths(self, release_id: str) -> npt.NDArray[np.int64]:
        return read_paths(self.spark, self.workdir, release_id, self.num_items)

    def _train(self, model_id: str, phase: Phase, table: str, start_from: str) -> dict[str, Any]:
        config, rows = self.config, self.result("samples")["rows"]
        changed = {
            "learning_rate": config.refresh.learning_rate,
            "structure_learning_rate": config.refresh.structure_learning_rate,
        }
        if config.training.local_processes:
            worth = max(1, rows * phase.epochs // config.refresh.rows_per_process)
            changed["num_processes"] = min(config.training.num_processes, worth)
        job = TrainJob(
            workdir=self.workdir.uri,
            samples=f"tables/{table}",
            model_id=model_id,
            phases=(phase,),
            seed=self.seed,
            num_nodes=self.space.num_nodes,
            num_layers=self.space.num_layers,
            encoder=config.encoder,
            structure=structure_config(self._manifest(start_from)),
            reranker=config.reranker,
            training=config.training.model_copy(update=changed),
            counts_file=f"models/{self.warm_id}/counts.npy",
            paths_file=f"models/{model_id}/item_paths.npy",
            start_from=start_from,
        )
        results = train_model(job)
        return {"rows_in": rows, "rows_out": rows, "epochs": [vars(result) for result in results]}

    def e_step(self) -> dict[str, Any]:
        """Everything together on the live paths; new items learn their vectors, and have no path yet."""
        mapping = self._paths(self.parent)
        self.workdir.write_array(mapping, "models", self.warm_id, "item_paths.npy")
        phase = Phase("joint", "joint", self.config.refresh.joint_epochs)
        return self._train(self.warm_id, phase, SAMPLES, self.parent)

    def targets(self) -> dict[str, Any]:
        """Samples with targets drawn from the softmax."""
        if self.config.mixed_targets.share == 0:
            rows = self.result("samples")["rows"]
            return {"rows_in": rows, "rows_out": rows}
        groups = self.workdir.read_array("models", self.warm_id, "item_paths.npy")[:, 0]
        return mix_targets(
            self.spark,
            self.workdir,
            samples=SAMPLES,
            name=MIXED,
            model_id=self.warm_id,
            groups_uri=self.workdir.write_array(groups, "models", self.warm_id, "groups.npy"),
            config=self.config.mixed_targets,
            seed=self.seed,
        )

    @property
    def _training_table(self) -> str:
        return MIXED if self.config.mixed_targets.share > 0 else SAMPLES

    def scores(self) -> dict[str, Any]:
        """s[v, c] and N_v of the new events, merged into the live release's."""
        days = sum(_days(label) for label in self.labels)
        decay = 2.0 ** (-days / self.config.refresh.half_life_days)
        done = accumulate_scores(
            self.spark,
            self.workdir,
            samples=self._training_table,
            model=FrozenModel.of(self.workdir, self.warm_id),
            release_id=self.release_id,
            config=self.config.scores,
            carried=Carried(self.parent, decay),
        )
        return {**done, "decay": decay}

    def assign(self) -> dict[str, Any]:
        """The live paths to new ones: new items get theirs, retired ones lose theirs."""
        model = load_model(self.workdir.filesystem, self.workdir.path("models", self.warm_id))
        users = load_users(self.spark, self.workdir, "validation")
        empty = invert(np.zeros(0, np.int64), np.zeros(0, np.int64))
        state_UE = Retriever(model, empty, beam=1, max_length=self.config.samples.history_length).encode(
            [list(history) for history in users.histories]
        )
        visited = beam_search(model.structure, state_UE, self.config.budget.beam).path_NB.numpy()
        summary = assign_paths(
            self.spark,
            self.workdir,
            release_id=self.release_id,
            parent_id=self.parent,
            num_items=self.active.count(),
            num_paths=self.parent_release.J,
            space=self.space,
            config=self.config.assignment,
            rule=self._alpha_rule(),
            visited_paths=visited,
            active=self.active,
        )
        mapping = self._paths(self.release_id)
        self.workdir.write_array(mapping, "models", self.release_id, "item_paths.npy")
        logger.info("  %d items moved, %d placed, alpha %.3g", summary.items_moved, summary.items_placed, summary.alpha)
        return {**vars(summary), "rows_in": self.num_items, "rows_out": int((mapping >= 0).sum())}

    def _alpha_rule(self) -> AlphaRule:
        """The live alpha, scaled as N_v has grown or shrunk: alpha must keep its proportion to the mean weight.

        One correction at most a day: a structure should stay put.
        """
        penalty = self.config.penalty
        if penalty.alpha != "auto":
            return AlphaRule(penalty.alpha, None, 0, penalty.power)
        choice = choose_structure(self.config, self.num_items, self.parent_release.J)
        before, now = (self._mean_weight(name) for name in (self.parent, self.release_id))
        live = json.loads(self.parent_release.gates)["alpha"]
        return AlphaRule(live * now / before, choice.items_per_visited_path, min(1, penalty.corrections), penalty.power)

    def _mean_weight(self, release_id: str) -> float:
        row = self.workdir.read_release(self.spark, "item_stats", release_id).agg(F.sum("num_events")).first()
        return max(float((row and row[0]) or 0.0), 1e-9)

    def e_step_final(self) -> dict[str, Any]:
        """Fit the structure model to the new paths."""
        phase = Phase("e_step_final", "frozen", self.config.refresh.final_epochs)
        done = self._train(self.release_id, phase, self._training_table, self.warm_id)
        counts = self.workdir.read_array("models", self.warm_id, "counts.npy")
        self.workdir.write_array(counts, "models", self.release_id, "counts.npy")
        live = json.loads(self.workdir.read_text("models", self.parent, "serving.json"))
        serving = live | {"release_id": self.release_id}
        self.workdir.write_text(json.dumps(serving), "models", self.release_id, "serving.json")
        return done

    def index(self) -> dict[str, Any]:
        """The inverted index of the active items."""
        return build_index(self.spark, self.workdir, release_id=self.release_id)

    def gates(self) -> dict[str, Any]:
        """Judge the candidate. Refused or not, every figure is kept."""
        config = self.config
        mapping = self.workdir.read_array("models", self.release_id, "item_paths.npy")
        active = np.sort(self.active.toPandas()["item_id"].to_numpy())
        health = measure_health(mapping[active], self.space)
        users = fixed_users(self.spark, self.workdir, self.interval.label, self.interval.start)
        quality = measure_quality(
            self.workdir,
            users,
            self.release_id,
            self.parent,
            ancestry(list_releases(self.spark, self.workdir), self.parent_release)[-1].release_id,
            k=config.evaluation.k[0],
            filter_history=config.evaluation.filter_history,
            seed=self.seed,
        )
        verdicts: list[Verdict] = [
            *judge_data(
                self.spark,
                self.workdir,
                config.gates,
                label=self.interval.label,
                known_items=int(self.parent_release.num_items),
                labels=self.labels,
            ),
            *judge_health(health, config.health, len(active)),
            *judge_quality(quality, config.gates),
            *judge_integrity(self.spark, self.workdir, self.release_id),
        ]
        for verdict in verdicts:
            word = {True: "passed", False: "REFUSED", None: "not judged"}[verdict.passed]
            logger.info("  %-18s %-10s %s", verdict.gate, word, verdict.text)
        return {
            "verdicts": [verdict.as_dict() for verdict in verdicts],
            "refused": refusals(verdicts),
            "health": vars(health),
            "quality": quality and vars(quality),
        }

    def publish(self) -> dict[str, Any]:
        """One commit: live, or refused and kept."""
        judged = self.result("gates")
        release = self._release("refused" if judged["refused"] else "live", judged)
        published = publish(self.spark, self.workdir, release)
        logger.info("  release %s is %s", published.release_id, published.status)
        if judged["refused"]:
            write_trends(self.spark, self.workdir, self.config)
            raise GateRefused(
                f"{release.release_id} is kept as refused, {self.parent} stays live: " + "; ".join(judged["refused"])
            )
        return {"rows_in": 1, "rows_out": 1, "status": published.status}

    def _release(self, status: str, judged: dict[str, Any]) -> Release:
        folder = self.workdir.path("models", self.release_id)
        manifest = read_manifest(self.workdir.filesystem, folder)
        if manifest is None:
            raise DeepRetrievalError(f"{folder} holds no finished model")
        assigned, data = self.result("assign"), self.result("ingest")
        gates = {
            "verdicts": judged["verdicts"],
            "health": judged["health"],
            "quality": judged["quality"],
            "alpha": assigned["alpha"],
            "items_moved": assigned["items_moved"],
            "items_placed": assigned["items_placed"],
            "learned": self.labels,
            "late": data["late"],
            "seconds": round(sum(stage["seconds"] for stage in self.run.record["stages"]), 1),
        }
        start = min([self.interval.label.split("/")[0], *(label.split("/")[0] for label in self.labels)])
        return Release(
            release_id=self.release_id,
            status=status,
            interval_start=start,
            interval_end=self.interval.label.split("/")[1],
            parent_release=self.parent,
            model_uri=folder,
            model_sha256=manifest["sha256"]["model.safetensors"],
            K=self.space.num_nodes,
            D=self.space.num_layers,
            J=self.parent_release.J,
            num_items=self.num_items,
            config_hash=self.config.identity(),
            gates=json.dumps(gates),
            created_at=datetime.now(UTC).replace(tzinfo=None),
        )

    def retrieve(self) -> dict[str, Any]:
        """Recommendations for every user."""
        serving = json.loads(self.workdir.read_text("models", self.release_id, "serving.json"))
        return retrieve_all(
            self.spark,
            self.workdir,
            release_id=self.release_id,
            k=self.config.evaluation.k[0],
            beam=int(serving["beam"]),
            max_length=self.config.samples.history_length,
            filter_history=self.config.evaluation.filter_history,
        )

    def summary(self) -> dict[str, Any]:
        """Return what machines read of a refresh."""
        done = {stage["name"]: stage["result"] for stage in self.run.record["stages"]}
        data = done.get("ingest", {})
        return {
            "run_id": self.run.run_id,
            "release_id": self.release_id,
            "parent_release": self.parent,
            "status": done.get("publish", {}).get("status"),
            "interval": self.interval.label,
            "learned": data.get("labels"),
            "data": {key: data.get(key) for key in ("rows_in", "kept", "quarantined", "filtered", "late", "reasons")},
            "items_moved": done.get("assign", {}).get("items_moved"),
            "items_placed": done.get("assign", {}).get("items_placed"),
            "gates": done.get("gates", {}).get("verdicts"),
            "quality": done.get("gates", {}).get("quality"),
            "stages": self.run.stages(),
        }


def _days(label: str) -> float:
    start, end = (datetime.fromisoformat(moment) for moment in label.split("/"))
    return (end - start).total_seconds() / 86400
