"""Measures every method on the same held-out users: accuracy, fidelity and cost, at one beam and along curves of B.

The first half of a user's events is the history, the second the truth (docs/evaluation.md). Filtered and unfiltered
figures are kept apart; candidates are counted after de-duplication and before the history filter.
Shape legend: U users, V items, E user dimension, B beam, k list length.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from dr_core.arrays import DoubleArray, IntArray
from dr_core.evaluation.metrics import candidate_recall, overlap, user_metrics
from dr_core.item_lists import ItemLists
from dr_core.model.histories import encode_histories
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.index import build_index
from dr_core.retrieval.candidates import Candidates, rerank
from dr_core.retrieval.energy_kernel import CompiledEnergies
from dr_core.retrieval.from_model import model_retriever
from dr_core.retrieval.prices import Prices
from dr_core.retrieval.retriever import Retriever
from dr_core.retrieval.router import Width

METRICS = ("precision", "recall", "f1", "ndcg", "hit_rate", "overlap")
CHUNK = 256
NUM_PRICES, BEYOND = 20, 1.3
"""Points of a curve that is searched by price; how far it goes beyond the candidates wanted, since the users who are measured
may find fewer at a price than its judges did."""


@dataclass(frozen=True)
class EvaluationUsers:
    """Held-out users with their histories (oldest first) and truths as item ids."""

    users: list[str]
    histories: list[IntArray]
    truths: list[IntArray]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Variant:
    """A structure model with its mapping, over the shared encoder and softmax: Deep Retrieval itself, or a control."""

    name: str
    model: DeepRetrievalModel
    path_VJ: IntArray


@dataclass
class Point:
    """One method at one width of its search; figures are per user, keyed (filtered, k, metric)."""

    method: str
    beam: float | None
    """Paths visited, the mean over users."""
    candidates: DoubleArray
    candidate_recall: DoubleArray
    multiply_adds: float | None
    microseconds: float | None
    figures: dict[tuple[bool, int, str], DoubleArray] = field(default_factory=dict)
    width: Width | None = None
    """Of the search, where there is one."""
    wanted: float | None = None
    """Candidates that the width was chosen for, 0 for the one that is served; it tells points of several seeds apart."""

    @property
    def mean_candidates(self) -> float:
        """Mean distinct candidates a user."""
        return float(self.candidates.mean())

    def metric(self, name: str, filtered: bool, k: int) -> DoubleArray:
        """Return a figure per user."""
        return self.candidate_recall if name == "candidate_recall" else self.figures[(filtered, k, name)]


class Evaluator:
    """The users, their states and the brute force of one frozen encoder and softmax, shared by all variants.

    Args:
        model: any variant's model (encoder and reranker are the same in all).
        users: whom to measure.
        ks: list lengths.
        max_length: L.
        counts_V: training events an item (popularity).
        max_exact: most candidates of the exact_candidates curve.
        retired: items that nothing may return.
        judges: users on whom the widths of a search are chosen; by default those who are measured.
        candidate_cost: what a candidate costs a search, in units of what the retriever's own ranker takes.
    """

    def __init__(
        self,
        model: DeepRetrievalModel,
        users: EvaluationUsers,
        *,
        ks: Sequence[int],
        max_length: int,
        counts_V: DoubleArray,
        max_exact: int,
        retired: IntArray | None = None,
        judges: EvaluationUsers | None = None,
        candidate_cost: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.users, self.ks, self.max_length, self.counts_V, self.seed = users, tuple(ks), max_length, counts_V, seed
        self.k_max, self.candidate_cost = max(ks), candidate_cost
        self.vector_VE = np.ascontiguousarray(model.reranker.item_vectors()[0].detach().numpy())
        self.bias_V = model.reranker.item_vectors()[1].detach().numpy().copy()
        retired = np.zeros(0, np.int64) if retired is None else retired
        self.bias_V[retired] = -np.inf
        self.num_items, self.dim = self.vector_VE.shape
        self.history = ItemLists.from_rows(users.histories)
        self.truth = ItemLists.from_rows(users.truths)
        self.user_UE = encode_histories(model, users.histories, max_length)
        if judges is None or not len(judges):
            self.judge_UE = self.user_UE.numpy()
        else:
            self.judge_UE = encode_histories(model, judges.histories, max_length).numpy()
        active_V = np.setdiff1d(np.arange(self.num_items), retired)
        self.popular_V = active_V[np.lexsort((active_V, -counts_V[active_V]))]
        self.brute_force = self._brute_force(min(self.num_items, max(max_exact, self.k_max)))

    def _brute_force(self, num_exact: int) -> Point:
        vector_VE, bias_V = torch.from_numpy(self.vector_VE), torch.from_numpy(self.bias_V)
        exact, filtered = [], []
        seconds = []
        for start in range(0, len(self.users), CHUNK):
            rows = range(start, min(start + CHUNK, len(self.users)))
            begun = time.perf_counter()
            score_UV = self.user_UE[rows.start : rows.stop] @ vector_VE.T + bias_V
            score_UV.topk(self.k_max, dim=1)
            seconds.append((time.perf_counter() - begun) / len(rows))
            exact.append(score_UV.topk(num_exact, dim=1).indices.numpy().astype(np.int32))
            for row, user in enumerate(rows):
                score_UV[row, torch.from_numpy(self.users.histories[user])] = -torch.inf
            filtered.append(score_UV.topk(min(self.k_max, self.num_items), dim=1).indices.numpy())
        self.exact_UN = np.concatenate(exact)
        self.reference = {False: self.exact_UN[:, : self.k_max].astype(np.int64), True: np.concatenate(filtered)}
        point = Point(
            "brute_force",
            None,
            np.full(len(self.users), float(self.num_items)),
            np.ones(len(self.users)),
            float(self.num_items * self.dim),
            float(np.median(seconds) * 1e6),
        )
        self.measure_lists(point, self.reference[False], self.reference[True])
        return point

    def measure_lists(self, point: Point, plain_Uk: IntArray, filtered_Uk: IntArray) -> None:
        """Fill in a point's figures from the lists that it recommends, unfiltered and filtered, int64 [U, k_max]."""
        for filtered, items_Uk in ((False, plain_Uk), (True, filtered_Uk)):
            for k in self.ks:
                figures = user_metrics(items_Uk, self.truth, k)
                for name in METRICS[:-1]:
                    point.figures[(filtered, k, name)] = getattr(figures, name)
                reference = self.reference[filtered][:, :k]
                point.figures[(filtered, k, "overlap")] = overlap(items_Uk[:, :k], reference)

    def measure_candidates(self, method: str, found: Candidates, *, multiply_adds: float) -> Point:
        """Rerank given candidates exactly and measure the lists; they come from no beam and are not timed."""
        user_UE, vectors = self.user_UE.numpy(), (self.vector_VE, self.bias_V)
        plain_Uk, _, _ = rerank(user_UE, found, *vectors, self.k_max)
        filtered_Uk, _, _ = rerank(user_UE, found, *vectors, self.k_max, (self.history.offsets, self.history.item_ids))
        point = self._point(method, None, found, multiply_adds, None)
        self.measure_lists(point, plain_Uk, filtered_Uk)
        return point

    def _point(
        self, method: str, beam: float | None, found: Candidates, multiply_adds: float, seconds: float | None
    ) -> Point:
        return Point(
            method,
            beam,
            np.diff(found.offsets).astype(np.float64),
            candidate_recall(ItemLists(found.offsets, found.item_ids), self.truth),
            multiply_adds,
            None if seconds is None else seconds * 1e6,
        )

    def _in_order(self, found: Candidates, excluded: ItemLists | None) -> IntArray:
        """First k of each user by (path, popularity): what the structure alone can say."""
        items_Uk = np.full((len(self.users), self.k_max), -1, np.int64)
        for user in range(len(self.users)):
            part = slice(found.offsets[user], found.offsets[user + 1])
            items, slots = found.item_ids[part], found.beam_slots[part]
            order = np.lexsort((items, -self.counts_V[items], slots))
            items = items[order]
            if excluded is not None:
                items = items[~np.isin(items, self.users.histories[user])]
            first = items[: self.k_max]
            items_Uk[user, : len(first)] = first
        return items_Uk

    def measure_width(
        self, variant: Variant, width: Width, *, wanted: float | None = None, retriever: Retriever | None = None
    ) -> Point:
        """Measure the lists that a variant serves at one width, and the time of its answers, in blocks, one thread.

        Args:
            wanted: candidates that the width was chosen for.
            retriever: the variant's, where it has been built already.
        """
        retriever = retriever or self.retriever_of(variant)
        user_UE = self.user_UE.numpy()
        retriever.retrieve(user_UE[:2], self.k_max, width=width)
        plain, filtered, seconds = [], [], []
        for start in range(0, len(self.users), CHUNK):
            block_UE = user_UE[start : start + CHUNK]
            begun = time.perf_counter()
            plain.append(retriever.retrieve(block_UE, self.k_max, width=width).item_Uk)
            seconds.append((time.perf_counter() - begun) / len(block_UE))
            excluded = [history.tolist() for history in self.users.histories[start : start + CHUNK]]
            filtered.append(retriever.retrieve(block_UE, self.k_max, width=width, excluded=excluded).item_Uk)
        candidates, work, paths = self._found(retriever, width)
        work += retriever.ranker.multiply_adds(len(candidates.item_ids) / len(self.users))
        point = self._point(variant.name, paths, candidates, work, float(np.median(seconds)))
        point.width, point.wanted = width, wanted
        self.measure_lists(point, np.concatenate(plain), np.concatenate(filtered))
        return point

    def _found(self, retriever: Retriever, width: Width) -> tuple[Candidates, float, float]:
        """Return the candidates of all users, the mean multiply-adds of finding them, and the mean number of paths."""
        found, work, paths = [], 0, 0
        for start in range(0, len(self.users), CHUNK):
            visits = retriever.search(self.user_UE[start : start + CHUNK].numpy(), width)
            found.append(retriever.candidates(visits))
            work += int(visits.work_U.sum())
            paths += int(np.count_nonzero(visits.path_UB >= 0))
        return _concatenate(found), work / len(self.users), paths / len(self.users)

    def measure_paths_only(self, variant: Variant, width: Width, *, method: str) -> Point:
        """Measure what a variant's search says without the reranker; the time is that of finding the candidates."""
        retriever = self.retriever_of(variant)
        user_UE = self.user_UE.numpy()
        retriever.candidates(retriever.search(user_UE[:2], width))
        seconds = []
        for start in range(0, len(self.users), CHUNK):
            block_UE = user_UE[start : start + CHUNK]
            begun = time.perf_counter()
            retriever.candidates(retriever.search(block_UE, width))
            seconds.append((time.perf_counter() - begun) / len(block_UE))
        candidates, work, paths = self._found(retriever, width)
        point = self._point(method, paths, candidates, work, float(np.median(seconds)))
        point.width = width
        self.measure_lists(point, self._in_order(candidates, None), self._in_order(candidates, self.history))
        return point

    def retriever_of(self, variant: Variant) -> Retriever:
        """Return a retriever over a variant's model and mapping."""
        items = np.arange(self.num_items)
        return model_retriever(variant.model, build_index(items, variant.path_VJ), width=1, max_length=self.max_length)

    def curve(self, variant: Variant, *, up_to: float, including: Width | None = None) -> list[Point]:
        """Measure a variant from its narrowest search until its candidates reach ``up_to`` a user, at ``including`` too.

        A structure that is searched by price has one for each of some numbers of candidates, chosen on the judges.
        """
        retriever = self.retriever_of(variant)
        if not isinstance(retriever.router, CompiledEnergies):
            return self._beams(variant, retriever, up_to, including)
        prices = self.prices(retriever)
        fewest = max(1.0, float(np.diff(retriever.index.offsets).mean()))
        budgets = np.geomspace(min(fewest, up_to), BEYOND * up_to, NUM_PRICES)
        points = [
            self.measure_width(variant, prices.at(wanted), wanted=round(wanted, 1), retriever=retriever)
            for wanted in budgets.tolist()
        ]
        if including is not None:
            points.append(self.measure_width(variant, including, wanted=0.0, retriever=retriever))
        return sorted(points, key=lambda point: point.mean_candidates)

    def _beams(self, variant: Variant, retriever: Retriever, up_to: float, including: Width | None) -> list[Point]:
        points, widest = [], including if isinstance(including, int) else 1
        for beam in sorted({*beams(variant.model.space.num_paths), widest}):
            points.append(self.measure_width(variant, beam, retriever=retriever))
            if points[-1].mean_candidates >= up_to and beam >= widest:
                break
        return points

    def prices(self, retriever: Retriever) -> Prices:
        """Return what each price finds for the judges, of their best items by the softmax."""
        score_UV = torch.from_numpy(self.judge_UE) @ torch.from_numpy(self.vector_VE).T + torch.from_numpy(self.bias_V)
        wanted_UK = score_UV.topk(min(self.k_max, self.num_items), dim=1).indices.numpy()
        return Prices.of(
            retriever.router,
            retriever.index,
            self.judge_UE,
            wanted_UK,
            self.candidate_cost * retriever.ranker.multiply_adds(1.0),
        )

    def fixed_size(self, method: str, sizes: Iterable[int]) -> list[Point]:
        """Measure ``exact_candidates``, ``popular_candidates`` or ``random_candidates`` at several sizes."""
        points = []
        num_users = len(self.users)
        generator = np.random.default_rng(self.seed)
        shuffled = generator.permutation(self.popular_V)
        shifts = generator.integers(len(shuffled), size=num_users)
        for size in sorted({min(max(1, size), len(shuffled)) for size in sizes}):
            if method == "exact_candidates":
                item_UN = self.exact_UN[:, :size].astype(np.int64)
            elif method == "popular_candidates":
                item_UN = np.broadcast_to(self.popular_V[:size], (num_users, size))
            else:
                item_UN = shuffled[(shifts[:, None] + np.arange(size)) % len(shuffled)]
            found = Candidates(
                np.arange(num_users + 1, dtype=np.int64) * item_UN.shape[1],
                np.ascontiguousarray(item_UN).ravel(),
                np.zeros(item_UN.size, np.int64),
            )
            work = float((self.num_items if method == "exact_candidates" else size) * self.dim)
            points.append(self.measure_candidates(method, found, multiply_adds=work))
        return points

    def popularity(self) -> Point:
        """Measure the most popular items themselves, as a list everybody gets."""
        size = min(self.num_items, self.k_max + max((len(h) for h in self.users.histories), default=0))
        item_UN = np.broadcast_to(self.popular_V[:size], (len(self.users), size))
        filtered_Uk = np.full((len(self.users), self.k_max), -1, np.int64)
        for user, history in enumerate(self.users.histories):
            first = item_UN[user][~np.isin(item_UN[user], history)][: self.k_max]
            filtered_Uk[user, : len(first)] = first
        plain_Uk = np.ascontiguousarray(item_UN[:, : self.k_max])
        point = Point(
            "popularity", None, np.full(len(self.users), float(self.k_max)), np.full(len(self.users), np.nan), 0.0, None
        )
        self.measure_lists(point, plain_Uk, filtered_Uk)
        return point

    def recommended(self, variant: Variant, width: Width, *, filtered: bool, k: int) -> IntArray:
        """Return the items int64 [U, k] that a variant recommends."""
        excluded = [history.tolist() for history in self.users.histories] if filtered else None
        return self.retriever_of(variant).retrieve(self.user_UE.numpy(), k, width=width, excluded=excluded).item_Uk


def beams(num_paths: int) -> list[int]:
    """Return widths 1, 2, 3, … growing by about a sixth, at most the number of paths."""
    widths = [1]
    while widths[-1] < num_paths:
        widths.append(min(num_paths, max(widths[-1] + 1, round(widths[-1] * 1.17))))
    return widths


def choose_beam(points: Sequence[Point], wanted: float) -> Point:
    """Return the narrowest point whose candidates reach ``wanted`` (paper: 5 to 10 times the items returned)."""
    for point in points:
        if point.mean_candidates >= wanted:
            return point
    return points[-1]


def nearest(points: Sequence[Point], candidates: float) -> Point:
    """Return the point whose mean number of candidates is nearest."""
    return min(points, key=lambda point: abs(point.mean_candidates - candidates))


def _concatenate(parts: Sequence[Candidates]) -> Candidates:
    offsets = [np.zeros(1, np.int64)]
    for part in parts:
        offsets.append(part.offsets[1:] + offsets[-1][-1])
    return Candidates(
        np.concatenate(offsets),
        np.concatenate([part.item_ids for part in parts]),
        np.concatenate([part.beam_slots for part in parts]),
    )
