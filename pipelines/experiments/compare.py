"""``dr compare``: Deep Retrieval and its rivals on the same users, histories and filter, with their costs.

Day one is run as ``dr run`` does; then, seed by seed, every family of rivals is a stage of its own: settings chosen on the
first seed's validation users, measured on the test users, kept below ``runs/`` so that a killed comparison goes on where it stopped.
Everything is fitted and timed with one thread.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from dr_core.arrays import FloatArray, IntArray
from dr_core.baselines.ann import AnnIndex, Found
from dr_core.baselines.base import Events, HistoryPeer, ItemFeatures, Peer, VectorPeer
from dr_core.baselines.base import rows as some_of
from dr_core.baselines.rerankers import CandidateReranker
from dr_core.errors import ConfigError
from dr_core.evaluation.evaluator import CHUNK, Arm, Evaluator, Point, nearest
from dr_core.evaluation.metrics import candidate_recall, contains, user_metrics
from dr_core.item_lists import ItemLists
from dr_core.retrieval.candidates import Candidates, rerank
from pipelines.config.run import RunConfig
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.measure import evaluator_of, inactive_items, released_arm, without
from pipelines.evaluation.measurement import RIVAL_STAGE, Measurement, rival_file
from pipelines.evaluation.users import load_users
from pipelines.experiments.baselines import (
    EQUAL_WORK,
    INDEXES,
    RERANKERS,
    RIVALS,
    SOFTMAX_INDEXES,
    Settings,
    families_of,
    offered,
    tried,
)
from pipelines.flows.day_one import Source, finish_report, open_runs, run_stages, seeds_run
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.split import training_interactions
from pipelines.storage.workdir import Workdir

logger = logging.getLogger(__name__)
Measured = tuple[Point, npt.NDArray[np.int32]]
"""A point and the lists [U, k] that it recommends, as the headline filters them."""
Points = dict[str, list[Measured]]
TUNED_SHARE = 0.025
"""Candidates, as a share of the items, at which the settings of an index are compared."""
FULL = 0.99
"""Share of the headline lists' places that a method's operating point has to fill."""
RERANKER_USERS = 3000
"""Training users whose candidates a reranker learns from."""


def compare(
    config: RunConfig,
    workdir_uri: str,
    *,
    logs: str | None = None,
    catalogue: str | None = None,
    interval: Interval | None = None,
    methods: Sequence[str] = (),
    num_seeds: int = 1,
    fresh: bool = False,
) -> dict[str, Any]:
    """Run day one, then every rival; return ``summary.json`` as a document.

    Args:
        methods: families or methods to measure; all of them when empty. What was measured before stays in the report.

    Raises:
        ConfigError: a method is not known.
    """
    try:
        chosen = families_of(list(methods))
    except ValueError as error:
        raise ConfigError(f"--methods {error}") from error
    source = Source(logs, catalogue, interval)
    all_seeds = max(num_seeds, 0 if fresh else seeds_run(config, Workdir(workdir_uri), source))
    with open_runs(f"dr compare {config.name}", config, workdir_uri, source, all_seeds, fresh=fresh) as runs:
        run_stages(runs)
        compare_runs(runs[:num_seeds], chosen)
        return finish_report(runs)


def compare_runs(runs: Sequence[LearnedRun], chosen: Sequence[str]) -> None:
    """Measure families of rivals on every seed, unless they were measured with the settings that are offered today."""
    settled: dict[str, Settings] = {}
    for day in runs:
        comparison = Comparison(day, settled)
        for family in chosen:
            settings = offered(family)
            name = RIVAL_STAGE + family
            known = next((stage for stage in day.run.record["stages"] if stage["name"] == name), None)
            day.run.stage(
                name,
                partial(comparison.measure, family),
                redo=known is not None and any(known["result"].get(key) != settings[key] for key in settings),
            )
        fits = [fit for family in chosen for fit in day.result(RIVAL_STAGE + family)["fits"]]
        settled = settled or {fit["method"]: fit["settings"] for fit in fits}


class Comparison:
    """Fits and measures rivals on one seed's split.

    Args:
        day: the seed's run.
        settled: by method, settings that were chosen before: nothing else is tried for these.
    """

    def __init__(self, day: LearnedRun, settled: Mapping[str, Settings] = MappingProxyType({})) -> None:
        self.day, self.config, self.settled = day, day.config, settled
        self.k, self.filtered = day.config.serving.k, day.config.serving.filter_history

    @cached_property
    def retired(self) -> IntArray:
        """Items that nothing may return."""
        return inactive_items(self.day)

    @cached_property
    def standing(self) -> IntArray:
        """All other items."""
        return np.setdiff1d(np.arange(self.day.num_items), self.retired)

    @cached_property
    def arm(self) -> Arm:
        """Deep Retrieval."""
        arm = released_arm(self.day)
        return Arm(arm.name, arm.model, without(arm.path_VJ, self.retired))

    @cached_property
    def evaluator(self) -> Evaluator:
        """The test users and the brute force that overlap is counted against."""
        users = load_users(self.day.spark, self.day.workdir, "test")
        return evaluator_of(self.day, self.arm.model, users, self.up_to, self.retired)

    @property
    def up_to(self) -> float:
        """Candidates a user at which curves end."""
        return max(self.config.evaluation.curve_shares) * self.day.num_items

    @cached_property
    def measured(self) -> Measurement:
        """Deep Retrieval's own measurement: the beam it is served with, and the candidates that rivals are read at."""
        return Measurement.load(self.day.workdir, self.day.run.run_id)

    @cached_property
    def validation(self) -> tuple[ItemLists, ItemLists]:
        """Histories and truths on which settings are chosen."""
        users = self.day.validation
        return ItemLists.from_rows(users.histories), ItemLists.from_rows(users.truths)

    @cached_property
    def events(self) -> Events:
        """What the rivals learn from."""
        day = self.day
        ordered = training_interactions(day.spark, day.workdir).select(
            "user", "item_id", "event_time", "event_order", "weight"
        )
        frame = (
            ordered.sort("user", "event_time", "event_order", "item_id").select("user", "item_id", "weight").toPandas()
        )
        _, sizes = np.unique(frame["user"].to_numpy(), return_counts=True)
        histories = ItemLists(np.r_[0, np.cumsum(sizes)].astype(np.int64), frame["item_id"].to_numpy(np.int64))
        return Events(histories, day.num_items, frame["weight"].to_numpy(np.float32), self._features())

    def _features(self) -> ItemFeatures:
        names = ("category", "creator")
        items = self.day.workdir.read(self.day.spark, "items").select("item_id", *names).sort("item_id").toPandas()
        values, counts = {}, {}
        for name in names:
            lists = [[value for value in str(text or "").split("|") if value] for text in items[name].fillna("")]
            known = {value: number for number, value in enumerate(sorted({value for one in lists for value in one}))}
            if known:
                values[name] = ItemLists.from_rows([[known[value] for value in one] for one in lists])
                counts[name] = len(known)
        return ItemFeatures(values, counts, np.zeros((len(items), 0), dtype=np.float32))

    def measure(self, family: str) -> dict[str, Any]:
        """Fit a family, choose its settings, measure its methods, keep their points; return what the record keeps."""
        faiss.omp_set_num_threads(1)
        with threadpool_limits(1):
            if family == "softmax":
                points, fits = self._softmax_indexes()
            elif family == "rerankers":
                points, fits = self._rerankers()
            else:
                points, fits = self._rival(family)
        curves = {
            method: [point for point, _ in measured] for method, measured in points.items() if method not in RERANKERS
        }
        own = self.measured.operating["deep_retrieval"]
        operating, lists = {}, {}
        for method, measured in points.items():
            answers = [point for point, items in measured if _answers(items)] or [point for point, _ in measured]
            if method == EQUAL_WORK:
                operating[method] = min(answers, key=lambda point: abs(_work(point) - _work(own)))
            else:
                operating[method] = nearest(answers, own.mean_candidates)
            lists[method] = next(items for point, items in measured if point is operating[method])
        Measurement(curves, operating, self.measured.beam).save(self.day.workdir, rival_file(self.day, family))
        self.day.workdir.write_arrays(lists, "runs", f"{rival_file(self.day, family)}.lists.npz")
        return {
            "rows_in": len(self.evaluator.users),
            "rows_out": sum(map(len, points.values())),
            "fits": fits,
            **offered(family),
        }

    def _rival(self, name: str) -> tuple[Points, list[dict[str, Any]]]:
        rival = RIVALS[name]

        def fitted(settings: Settings) -> Peer:
            peer = rival.build(self.config, settings, self.day.seed)
            peer.fit(self.events)
            return peer

        peer, fit = self._choose(name, tried(rival.settings), fitted, self._validation_recall)
        points: Points = {name: [self._measure_peer(peer)]}
        fits = [fit | {"megabytes": peer.megabytes()}]
        for method, kind in rival.indexes.items():
            assert isinstance(peer, VectorPeer)
            users = peer.users(self.evaluator.history), peer.users(self.validation[0])
            points[method], index_fit = self._measure_index(method, kind, peer.item_VE, *users)
            fits.append(index_fit)
        return points, fits

    def _choose(
        self,
        method: str,
        settings: Sequence[Settings],
        fitted: Callable[[Settings], Any],
        judged: Callable[[Any], float],
    ) -> tuple[Any, dict[str, Any]]:
        """Fit with every setting; return the best on the validation users, and what was tried.

        Settings that differ in the half life alone share one fit: the first of them has its seconds, so that the trials'
        sum is what was spent; the best has the seconds of its fit in any case.
        """
        best, chosen, best_seconds, trials = None, -1, 0.0, []
        fits: dict[str, tuple[Any, float]] = {}
        for number, some in enumerate([self.settled[method]] if method in self.settled else settings):
            learned = json.dumps({name: value for name, value in some.items() if name != "half_life"}, sort_keys=True)
            is_new = learned not in fits
            if is_new:
                started = time.monotonic()
                fits[learned] = fitted(some), time.monotonic() - started
            candidate, seconds = fits[learned]
            if isinstance(candidate, HistoryPeer):
                candidate = candidate.with_half_life(some.get("half_life"))
            figure, spent = judged(candidate), seconds if is_new else 0.0
            trials.append({"settings": dict(some), "validation": round(figure, 5), "seconds": round(spent, 2)})
            logger.info("  %s %s: %.4f on the validation users, %.1f s", method, json.dumps(dict(some)), figure, spent)
            if chosen < 0 or figure > trials[chosen]["validation"]:
                best, chosen, best_seconds = candidate, number, seconds
        return best, {"method": method, "trials": trials, **trials[chosen], "seconds": round(best_seconds, 2)}

    def _validation_recall(self, peer: Peer) -> float:
        histories, truths = self.validation
        if not len(self.day.validation):
            return 0.0
        found = peer.retrieve(histories, self.k, filtered=self.filtered, barred=self.retired)
        return float(np.nanmean(user_metrics(found, truths, self.k).recall))

    def _listed(self, point: Point, plain_Uk: IntArray, filtered_Uk: IntArray) -> Measured:
        """Fill in a point's figures; return it with the headline lists."""
        self.evaluator.measure_lists(point, plain_Uk, filtered_Uk)
        return point, (filtered_Uk if self.filtered else plain_Uk)[:, : self.k].astype(np.int32)

    def _measure_peer(self, peer: Peer) -> Measured:
        """Measure a method that scores every item."""
        evaluator, histories = self.evaluator, self.evaluator.history
        num_users = len(evaluator.users)
        point = Point(
            peer.name,
            None,
            np.full(num_users, float(self.day.num_items)),
            np.ones(num_users),
            peer.multiply_adds(histories),
            1e6 * _seconds_a_user(peer, histories, evaluator.k_max),
        )
        plain, filtered = (
            peer.retrieve(histories, evaluator.k_max, filtered=flag, barred=self.retired) for flag in (False, True)
        )
        return self._listed(point, plain, filtered)

    def _measure_index(
        self, method: str, kind: str, item_VE: FloatArray, user_UE: FloatArray, validation_UE: FloatArray
    ) -> tuple[list[Measured], dict[str, Any]]:
        """Measure an index of vectors along its widths; its candidates are ranked by the same vectors."""
        build, settings = INDEXES[kind]
        vectors = np.ascontiguousarray(item_VE[self.standing])
        if method == EQUAL_WORK:
            wanted = _work(self.measured.operating["deep_retrieval"])
            most = max(map(_work, self.measured.curves["deep_retrieval"]))
        else:
            wanted, most = TUNED_SHARE * len(self.standing), self.up_to

        def cost(found: Found) -> float:
            return found.multiply_adds if method == EQUAL_WORK else found.scored

        truth_Uk = _exact(validation_UE, vectors, self.k)

        def overlap_at_budget(index: AnnIndex) -> float:
            """Share of the vectors' own top k among the candidates that a budget pays for."""
            reached = [0.0, 0.0]
            for width in index.widths():
                found = index.find(validation_UE, width)
                hit = contains(_lists(found.candidates), np.repeat(np.arange(len(truth_Uk)), self.k), truth_Uk.ravel(),
                               num_users=len(truth_Uk)).mean()  # fmt: skip
                before, reached = reached, [cost(found), float(hit)]
                if cost(found) >= wanted:
                    return float(np.interp(wanted, *zip(before, reached, strict=True)))
            return reached[1]

        index, fit = self._choose(method, tried(settings), lambda some: build(vectors, some), overlap_at_budget)
        zeros = np.zeros(len(item_VE), dtype=np.float32)
        barred = tuple(self.evaluator.history)
        points: list[Measured] = []
        for width in index.widths():
            found = index.find(user_UE, width)
            kept = Candidates(
                found.candidates.offsets, self.standing[found.candidates.item_ids], found.candidates.beam_slots
            )
            plain, _, _ = rerank(user_UE, kept, item_VE, zeros, self.evaluator.k_max)
            filtered, _, _ = rerank(user_UE, kept, item_VE, zeros, self.evaluator.k_max, barred)
            point = Point(
                method,
                float(width),
                _scored(found, len(user_UE)),
                candidate_recall(_lists(kept), self.evaluator.truth),
                found.multiply_adds,
                1e6
                * _median_seconds(lambda block, width=width: index.search(block, self.evaluator.k_max, width), user_UE),  # type: ignore[misc]
            )
            points.append(self._listed(point, plain, filtered))
            if cost(found) >= most and _answers(points[-1][1]):
                break
        return points, fit | {"megabytes": index.megabytes()}

    def _softmax_indexes(self) -> tuple[Points, list[dict[str, Any]]]:
        """Measure clusters and a graph over the very vectors that Deep Retrieval reranks with."""
        evaluator = self.evaluator
        vector_VE, bias_V = self.arm.model.reranker.item_vectors()
        item_VE = np.column_stack([vector_VE.detach().numpy(), bias_V.detach().numpy()])
        validation = self._states(self.day.validation.histories)
        points: Points = {}
        fits = []
        for method, kind in SOFTMAX_INDEXES.items():
            points[method], fit = self._measure_index(
                method, kind, item_VE, _with_one(evaluator.user_UE.numpy()), _with_one(validation)
            )
            fits.append(fit)
        return points, fits

    def _states(self, histories: Sequence[Any]) -> FloatArray:
        return self.evaluator.retriever_of(self.arm).encode(histories)

    def _rerankers(self) -> tuple[Points, list[dict[str, Any]]]:
        """Measure other rerankers on the candidates of Deep Retrieval's own beam, learned from training users cut in half."""
        evaluator, beam = self.evaluator, self.measured.beam
        retriever = evaluator.retriever_of(self.arm)
        histories, truths = _halves(self.events.histories, RERANKER_USERS, self.day.seed)
        train_UE = self._states(histories)
        paths = retriever.search(train_UE, beam)
        learned = retriever.candidates(paths)
        owner = np.repeat(np.arange(len(train_UE)), np.diff(learned.offsets))
        met = contains(ItemLists.from_rows(truths), owner, learned.item_ids, num_users=len(train_UE))
        user_UE = evaluator.user_UE.numpy()
        own_paths = retriever.search(user_UE, beam)
        found, log_prob_UB = retriever.candidates(own_paths), own_paths.log_prob_UB
        counted = retriever.router.multiply_adds(beam)
        per_user = len(found.item_ids) / len(user_UE)
        points: Points = {}
        fits = []
        for method, kind in RERANKERS.items():
            started = time.monotonic()
            ranker = CandidateReranker(
                kind,  # type: ignore[arg-type]
                evaluator.vector_VE,
                self.arm.model.reranker.item_vectors()[1].numpy(),
                self.day.counts,
                seed=self.day.seed,
            )
            ranker.fit(train_UE, learned, paths.log_prob_UB, met)
            seconds = time.monotonic() - started
            point = Point(
                method,
                float(beam),
                np.diff(found.offsets).astype(np.float64),
                candidate_recall(_lists(found), evaluator.truth),
                counted + per_user * ranker.multiply_adds(),
                None,
            )
            plain, filtered = (
                ranker.rank(user_UE, found, log_prob_UB, evaluator.k_max, barred)
                for barred in (None, evaluator.history)
            )
            points[method] = [self._listed(point, plain, filtered)]
            fits.append(
                {"method": method, "seconds": round(seconds, 2), "settings": {}, "trials": [], "megabytes": None}
            )
        return points, fits


def _answers(items_Uk: npt.NDArray[np.int32]) -> bool:
    """Return whether the lists are as good as full: a graph searched with less than k in sight cannot fill them."""
    return float((items_Uk >= 0).mean()) >= FULL


def _seconds_a_user(peer: Peer, histories: ItemLists, k: int) -> float:
    """Return the median seconds a user of scoring all items and taking the best k, encoding left out, in blocks."""
    if isinstance(peer, VectorPeer):
        items = torch.from_numpy(peer.item_VE)
        return _median_seconds(lambda block: (torch.from_numpy(block) @ items.T).topk(k), peer.users(histories))
    seconds = []
    for start in range(0, len(histories.offsets) - 1, CHUNK):
        some = some_of(histories, start, start + CHUNK)
        begun = time.perf_counter()
        torch.from_numpy(peer.scores(some)).topk(k)
        seconds.append((time.perf_counter() - begun) / (len(some.offsets) - 1))
    return float(np.median(seconds))


def _median_seconds(answer: Callable[[FloatArray], Any], user_UE: FloatArray) -> float:
    seconds = []
    for start in range(0, len(user_UE), CHUNK):
        block = np.ascontiguousarray(user_UE[start : start + CHUNK])
        begun = time.perf_counter()
        answer(block)
        seconds.append((time.perf_counter() - begun) / len(block))
    return float(np.median(seconds))


def _exact(user_UE: FloatArray, item_VE: FloatArray, k: int) -> IntArray:
    parts = [
        (torch.from_numpy(user_UE[at : at + CHUNK]) @ torch.from_numpy(item_VE).T)
        .topk(min(k, len(item_VE)))
        .indices.numpy()
        for at in range(0, len(user_UE), CHUNK)
    ]
    return np.concatenate(parts) if parts else np.empty((0, k), dtype=np.int64)


def _scored(found: Found, num_users: int) -> npt.NDArray[np.float64]:
    """Return the items scored for each user; where only their mean is known, that."""
    listed = np.diff(found.candidates.offsets).astype(np.float64)
    return listed if listed.mean() == found.scored else np.full(num_users, found.scored)


def _work(point: Point) -> float:
    return float(point.multiply_adds or 0.0)


def _lists(candidates: Candidates) -> ItemLists:
    return ItemLists(candidates.offsets, candidates.item_ids)


def _with_one(user_UE: FloatArray) -> FloatArray:
    return np.column_stack([user_UE, np.ones(len(user_UE), dtype=np.float32)])


def _halves(histories: ItemLists, most: int, seed: int) -> tuple[list[IntArray], list[IntArray]]:
    """Return first and second half of the histories of some users."""
    sizes = np.diff(histories.offsets)
    able = np.flatnonzero(sizes >= 2)
    chosen = np.sort(np.random.default_rng(seed).permutation(able)[:most])
    whole = [np.asarray(histories.item_ids[histories.offsets[u] : histories.offsets[u + 1]], np.int64) for u in chosen]
    return [items[: len(items) // 2] for items in whole], [items[len(items) // 2 :] for items in whole]
