"""The gates before publishing: data, structure health, quality, integrity. Each has a figure, a bound and a verdict."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dr_core.errors import DeepRetrievalError
from dr_core.evaluation.bootstrap import paired_bootstrap
from dr_core.evaluation.evaluator import EvaluationUsers
from dr_core.evaluation.metrics import candidate_recall, user_metrics
from dr_core.item_lists import ItemLists
from dr_core.learning.checkpoint import load_model, read_manifest
from dr_core.paths.health import Health, HealthLimits, check_health
from dr_core.retrieval.from_model import model_retriever
from dr_core.retrieval.router import width_of
from pipelines.config.run import GatesConfig
from pipelines.stages.structure.index import load_index
from pipelines.storage.workdir import Workdir


@dataclass(frozen=True)
class Verdict:
    """One gate's judgement; ``passed`` is None where it could not judge."""

    gate: str
    figure: float | None
    bound: str
    passed: bool | None
    text: str

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Quality:
    """Recall of a new and a live release on users never trained on, against what they did in the newest interval.

    ``first_recall`` is that of the full run that both descend from, as if nothing had been refreshed; None when its
    model is deleted or it is itself the live release.
    """

    users: int
    recall: float
    live_recall: float
    first_recall: float | None
    difference: float
    low: float
    high: float
    candidate_recall: float


def refusals(verdicts: Sequence[Verdict]) -> list[str]:
    """Return the reasons of the gates that refused."""
    return [verdict.text for verdict in verdicts if verdict.passed is False]


def judge_data(
    spark: SparkSession, workdir: Workdir, config: GatesConfig, *, label: str, known_items: int, labels: Sequence[str]
) -> list[Verdict]:
    """Judge the newest interval's rows against the trailing mean, and the share of events of unseen items."""
    ledger = (
        workdir.read(spark, "intervals").where("interval_end IS NOT NULL").orderBy(F.desc("interval_end")).collect()
    )
    rate = {row["source_interval"]: row["kept"] / _days(row["interval_start"], row["interval_end"]) for row in ledger}
    ended = {row["source_interval"]: row["interval_end"] for row in ledger}
    earlier = [rate[other] for other in rate if ended[other] < ended[label]][: config.trailing_intervals]
    bound = f"{config.min_rows_share} … {config.max_rows_share} of the trailing mean"
    if earlier:
        share = rate[label] / max(float(np.mean(earlier)), 1e-9)
        verdicts = [
            Verdict(
                "data: rows",
                share,
                bound,
                config.min_rows_share <= share <= config.max_rows_share,
                f"{rate[label]:.0f} kept rows a day are {share:.2f} of the mean of {len(earlier)} earlier intervals, allowed"
                f" are {bound}"
                " (gates.min_rows_share, gates.max_rows_share): is the log whole, and delivered once?",
            )
        ]
    else:
        verdicts = [
            Verdict("data: rows", None, bound, None, "the first interval after day one has none to compare with")
        ]
    events = workdir.read(spark, "interactions").where(F.col("source_interval").isin(*labels))
    counts = events.agg(
        F.count(F.lit(1)).alias("all"), F.count_if(F.col("item_id") >= known_items).alias("unseen")
    ).first()
    unseen = counts["unseen"] / max(counts["all"], 1) if counts else 0.0
    verdicts.append(
        Verdict(
            "data: unseen items",
            unseen,
            f"at most {config.max_unseen_share}",
            unseen <= config.max_unseen_share,
            f"{unseen:.1%} of the events are of items the live release does not know, allowed are"
            f" {config.max_unseen_share:.1%} (gates.max_unseen_share): did item ids change their form?",
        )
    )
    return verdicts


def _days(start: datetime, end: datetime) -> float:
    return max((end - start).total_seconds(), 1.0) / 86_400


def judge_health(health: Health, limits: HealthLimits, num_items: int) -> list[Verdict]:
    """Judge the structure's health."""
    problems = check_health(health, limits, num_items)
    text = "; ".join(problems) or "healthy"
    return [Verdict("health", health.normalized_entropy, "health.*", not problems, text)]


def judge_quality(quality: Quality | None, config: GatesConfig) -> list[Verdict]:
    """Judge recall against the live release."""
    bound = f"interval of the difference not below -{config.max_recall_loss}"
    if quality is None or quality.users < config.min_users:
        users = 0 if quality is None else quality.users
        text = (
            f"only {users} held-out users have events in the interval, {config.min_users} are needed (gates.min_users)"
        )
        return [Verdict("quality", None, bound, None, text)]
    text = (
        f"recall {quality.recall:.4f} against {quality.live_recall:.4f} of the live release on {quality.users} users:"
        f" {quality.difference:+.4f} [{quality.low:+.4f}, {quality.high:+.4f}] (gates.max_recall_loss)"
    )
    return [Verdict("quality", quality.difference, bound, quality.high >= -config.max_recall_loss, text)]


def judge_integrity(spark: SparkSession, workdir: Workdir, release_id: str) -> list[Verdict]:
    """Judge whether the index is the inverse of the mapping of active items, the model loads and a retriever answers."""
    active = workdir.read(spark, "items").where("active").select("item_id")
    forward = (
        workdir.read_release(spark, "item_paths", release_id)
        .join(active, "item_id", "left_semi")
        .select("item_id", "path_id")
    )
    inverse = workdir.read_release(spark, "path_items", release_id).select(
        F.explode("item_ids").alias("item_id"), "path_id"
    )
    sides = forward.withColumn("side", F.lit(1)).unionByName(inverse.withColumn("side", F.lit(-1)))
    balance = sides.groupBy("item_id", "path_id").agg(
        F.abs(F.sum("side")).alias("differing"), F.count_if(F.col("side") > 0).alias("placed")
    )
    totals = balance.agg(*(F.coalesce(F.sum(name), F.lit(0)) for name in balance.columns[2:])).collect()
    differing, placed = totals[0]
    unplaced = active.join(forward, "item_id", "left_anti").count()
    problem = ""
    try:
        index = load_index(workdir, release_id)
        model = load_model(workdir.filesystem, workdir.path("models", release_id))
        retriever = model_retriever(model, index, width=4, max_length=8)
        answered = retriever.retrieve(retriever.encode([[int(index.item_ids[0])]]), 1).item_Uk
        if answered[0, 0] < 0 or int(index.offsets[-1]) != placed:
            problem = "the retriever finds nothing, or its index has another size than item_paths"
    except (DeepRetrievalError, OSError, ValueError) as error:
        problem = str(error)
    text = (
        f"{differing} places differ between item_paths and path_items, {unplaced} active items have no path; {problem}"
    )
    is_whole = differing == 0 and unplaced == 0 and not problem
    return [Verdict("integrity", float(differing + unplaced), "0", is_whole, text.rstrip("; "))]


def fixed_users(spark: SparkSession, workdir: Workdir, label: str, start: Any) -> EvaluationUsers:
    """Return the held-out users with events in an interval: their kept history before it, and those events as truth."""
    held_out = F.broadcast(workdir.read(spark, "evaluation_users").where(F.col("role").isin("test", "validation")))
    truth = (
        workdir.read(spark, "interactions")
        .where((F.col("source_interval") == label) & (F.col("event_time") >= F.lit(start)))
        .join(held_out.select("user"), "user", "left_semi")
        .groupBy("user")
        .agg(F.sort_array(F.collect_set("item_id")).alias("truth"))
    )
    zipped = F.arrays_zip("item_ids", "event_times")
    before = F.transform(F.filter(zipped, lambda e: e["event_times"] < F.lit(start)), lambda e: e["item_ids"])
    rows = (
        truth.join(workdir.read(spark, "user_histories"), "user")
        .select("user", before.alias("history"), "truth")
        .where(F.size("history") > 0)
        .sort("user")
        .toPandas()
    )
    return EvaluationUsers(
        list(rows["user"]),
        [np.asarray(items, dtype=np.int64) for items in rows["history"]],
        [np.asarray(items, dtype=np.int64) for items in rows["truth"]],
    )


def measure_quality(
    workdir: Workdir,
    users: EvaluationUsers,
    release_id: str,
    live_id: str,
    first_id: str,
    *,
    k: int,
    filter_history: bool,
    seed: int,
) -> Quality | None:
    """Compare a release with the live one and with the first of its line, each with its own width, on the same users."""
    if not len(users):
        return None
    new, found = recall_of(workdir, users, release_id, k=k, filter_history=filter_history)
    live, _ = recall_of(workdir, users, live_id, k=k, filter_history=filter_history)
    is_there = read_manifest(workdir.filesystem, workdir.path("models", first_id)) is not None
    first = None
    if first_id != live_id and is_there:
        first, _ = recall_of(workdir, users, first_id, k=k, filter_history=filter_history)
    difference, low, high = paired_bootstrap(new, live, 1000, seed)
    return Quality(
        users=int(np.sum(~np.isnan(new))),
        recall=float(np.nanmean(new)),
        live_recall=float(np.nanmean(live)),
        first_recall=None if first is None else float(np.nanmean(first)),
        difference=difference,
        low=low,
        high=high,
        candidate_recall=float(np.nanmean(found)),
    )


def recall_of(
    workdir: Workdir, users: EvaluationUsers, release_id: str, *, k: int, filter_history: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return recall at k and candidate recall of a release, a figure a user; items it does not know are not found."""
    model = load_model(workdir.filesystem, workdir.path("models", release_id))
    serving = json.loads(workdir.read_text("models", release_id, "serving.json"))
    retriever = model_retriever(
        model, load_index(workdir, release_id), width=width_of(serving), max_length=int(serving["history_length"])
    )
    known = [history[history < model.num_items] for history in users.histories]
    state_UE = retriever.encode(known)
    lists = retriever.retrieve(state_UE, k, excluded=known if filter_history else None).item_Uk
    truth = ItemLists.from_rows(users.truths)
    found = retriever.candidates(retriever.search(state_UE))
    return user_metrics(lists, truth, k).recall, candidate_recall(ItemLists(found.offsets, found.item_ids), truth)
