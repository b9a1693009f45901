"""The front door: Deep Retrieval in one process, without Spark and without a work folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from pydantic import ValidationError

from dr_core.api.archive import Archive
from dr_core.api.interactions import Columns, read_interactions
from dr_core.api.item_keys import ItemKeys
from dr_core.arrays import BoolArray, FloatArray, IntArray
from dr_core.errors import ConfigError, InputError
from dr_core.evaluation.evaluator import beams
from dr_core.learning.budget import served_candidates
from dr_core.learning.config import LearningConfig
from dr_core.learning.em import Learned, learn
from dr_core.learning.held_out import HeldOut, cut_in_halves
from dr_core.learning.samples import Histories
from dr_core.paths.health import check_health, measure_health
from dr_core.paths.index import build_index
from dr_core.retrieval.energy_kernel import CompiledEnergies
from dr_core.retrieval.filter import Allowed
from dr_core.retrieval.from_model import model_retriever
from dr_core.retrieval.prices import Prices
from dr_core.retrieval.retriever import Retriever
from dr_core.retrieval.router import Width, as_settings, width_of
from dr_core.threads import threads

NAMED = 5
"""Unknown keys that a warning names."""
JUDGES = 1000
"""Users at most on whom the width of a search is chosen."""


class Recommendations(NamedTuple):
    """Items for one history, best first; fewer than asked for where there are no more."""

    items: list[Any]
    """Keys of the items."""
    scores: FloatArray
    """The softmax's score of each, float32 [n]."""


class VisitedPath(NamedTuple):
    """A path that a history's search visits."""

    nodes: tuple[int, ...]
    """c_1 … c_D."""
    probability: float
    """p(c|x)."""
    items: list[Any]
    """Keys of its items that are visited: all of them by a beam, those that are worth the price by a price."""


class DeepRetrieval:
    """Candidate generation by a learned structure: K nodes x D layers, items found by beam search.

    Gao et al., *Deep Retrieval: Learning A Retrievable Structure for Large-Scale Recommendations* (2020).

    Args:
        k: items that a list holds by default; the width of a search is chosen for lists of this length. It replaces ``serving.k``.
        seed: root of all randomness; the same seed, configuration and interactions give the same model.
        config: all of the learning's configuration at once; its seed is replaced by ``seed``.
        sections: sections of :class:`dr_core.learning.config.LearningConfig` by their names, each as a dictionary or an
            object, such as ``em={"rounds": 3}`` or ``serving={"beam": 20}``.

    Raises:
        ConfigError: an unknown section or key, or a value out of its range.

    Example:
        Readers who each stay on one shelf of a library get books of their shelf.

        >>> import random
        >>> from dr_core import DeepRetrieval
        >>> draw = random.Random(0)
        >>> shelves = {shelf: [f"{shelf}{book}" for book in range(12)] for shelf in "abcd"}
        >>> histories = [draw.sample(shelves[draw.choice("abcd")], 8) for _ in range(300)]
        >>> model = DeepRetrieval(k=3, seed=0, training={"batch_rows": 16}).fit(histories)
        >>> model.recommend(["a1", "a5", "a7"]).items  # doctest: +SKIP
        ['a9', 'a3', 'a10']
        >>> [book[0] for book in model.recommend(["a1", "a5", "a7"]).items]
        ['a', 'a', 'a']
    """

    def __init__(
        self,
        k: int = 10,
        seed: int = 0,
        *,
        config: LearningConfig | None = None,
        **sections: Any,
    ) -> None:
        if k < 1:
            raise ConfigError(f"k={k}: a list holds at least one item")
        if config is not None and sections:
            raise ConfigError(f"config and {', '.join(sections)}: give the whole configuration, or sections of it")
        self.k, self.seed = k, seed
        self.config = _configured(config, k, seed, sections)
        self._archive: Archive | None = None
        self._retriever: Retriever | None = None
        self.learned: Learned | None = None
        """What :meth:`fit` learned, with figures of every round; None for a loaded model."""

    def fit(
        self,
        interactions: Any,
        *,
        user: str = "user",
        item: str = "item",
        order: str | None = "order",
        weight: str | None = None,
        validation: float | Sequence[Sequence[Hashable]] = 0.05,
        progress: bool = False,
    ) -> Self:
        """Learn from what users did.

        Args:
            interactions: one of

                * a list of histories, each a list of item keys, oldest first;
                * a pandas or pyarrow table with a row an event;
                * a scipy sparse matrix of users x items, whose values are weights. Its item keys are the column numbers.
                  It has no order, so each row is shuffled: ``encoder={"kind": "mean"}`` suits it.

            user, item: a table's columns of keys.
            order: a table's column of positions or times; None shuffles each history.
            weight: a table's column of weights as training targets; by default every event weighs 1.
            validation: who is held out of training to judge epochs, alpha and the width of a search: a share of the users, or histories
                of other users. 0 holds out nobody: then the last epoch is kept, and alpha is not corrected.
            progress: whether to say on stderr how far learning has come.

        Returns:
            this model, fitted.

        Raises:
            InputError: interactions of another form, without events, without a column, or with a missing value.
            ConfigError: ``validation`` is no share, or the configured M-step cannot run on these items.

        Example:
            A table with times, of which one event in twenty users is held out; and a matrix.

            >>> import pandas as pd
            >>> rows = [(reader, book, hour) for reader, books in enumerate(histories) for hour, book in enumerate(books)]
            >>> table = pd.DataFrame(rows, columns=["reader", "book", "hour"])
            >>> fast = {"em": {"rounds": 1, "warm_up_epochs": 2}, "training": {"batch_rows": 16}}
            >>> fitted = DeepRetrieval(k=3, **fast).fit(table, user="reader", item="book", order="hour")
            >>> len(fitted.items)
            48
            >>> import numpy as np
            >>> from scipy.sparse import csr_matrix
            >>> matrix = csr_matrix(np.random.default_rng(0).random((100, 30)) < 0.2)
            >>> DeepRetrieval(k=3, encoder={"kind": "mean"}, **fast).fit(matrix).items[:3]
            [0, 1, 2]
        """
        with _told(progress), threads(self.config.training.threads_per_process):
            read = read_interactions(interactions, Columns(user, item, order, weight), self.seed)
            training, held_out = self._held_out(read.histories, read.keys, validation)
            learned = learn(training, len(read.keys), self.config, held_out)
            self.learned = learned
            self._serve(Archive(learned.model, learned.path_VJ, read.keys, {}))
            health = check_health(
                measure_health(learned.path_VJ, learned.choice.space), self.config.health, len(read.keys)
            )
            for problem in health:
                warnings.warn(problem, stacklevel=2)
            judged = held_out.histories or [training.items(user) for user in range(len(training))]
            self._fitted.facts["width"] = as_settings(self._chosen_width(learned, judged[:JUDGES]))
        return self

    def _held_out(
        self, histories: Histories, keys: ItemKeys, validation: float | Sequence[Sequence[Hashable]]
    ) -> tuple[Histories, HeldOut]:
        """Return the histories to learn from, and the users who judge."""
        if not isinstance(validation, int | float):
            rows = [keys.ids(history)[0] for history in validation]
            return histories, cut_in_halves(Histories.from_rows(rows))
        if not 0 <= validation < 1:
            raise ConfigError(f"validation={validation}: give a share of the users, at least 0 and below 1")
        eligible = np.flatnonzero(np.diff(histories.offsets) >= 2)
        drawn = np.random.default_rng(self.seed).permutation(eligible)[: round(validation * len(eligible))]
        rest = np.setdiff1d(np.arange(len(histories)), drawn)
        return histories.of(rest), cut_in_halves(histories.of(np.sort(drawn)))

    def _chosen_width(self, learned: Learned, histories: Sequence[IntArray]) -> Width:
        """Return the configured beam, or the price or the narrowest beam that finds as many candidates as wanted, on the mean
        of some users."""
        serving, retriever = self.config.serving, self.retriever
        if serving.beam != "auto":
            return serving.beam
        user_UE, wanted = self._encode(histories), served_candidates(self.config, learned.choice)
        if isinstance(retriever.router, CompiledEnergies):
            best_UK = self._fitted.model.reranker.best(torch.from_numpy(user_UE), self.k).numpy()
            work = self.config.budget.candidate_cost * retriever.ranker.multiply_adds(1.0)
            return Prices.of(retriever.router, retriever.index, user_UE, best_UK, work).at(wanted)
        width = 1
        for width in beams(self._fitted.model.space.num_paths):
            found = retriever.candidates(retriever.search(user_UE, width))
            if len(found.item_ids) >= wanted * len(histories):
                break
        return width

    @property
    def _fitted(self) -> Archive:
        if self._archive is None:
            raise ConfigError("the model is not fitted: call fit(interactions), or DeepRetrieval.load(path)")
        return self._archive

    @property
    def items(self) -> list[Any]:
        """Keys of all items, in the order of masks.

        >>> model.items[:2], len(model.items)
        (['a0', 'a1'], 48)
        """
        return self._fitted.keys.keys

    @property
    def retriever(self) -> Retriever:
        """What serves: it takes and returns item numbers instead of keys.

        Raises:
            ConfigError: the model is not fitted.
        """
        if self._retriever is None:
            raise ConfigError("the model is not fitted: call fit(interactions), or DeepRetrieval.load(path)")
        return self._retriever

    def _serve(self, archive: Archive) -> None:
        self._archive = archive
        index = build_index(np.arange(len(archive.keys)), archive.path_VJ)
        self._retriever = model_retriever(archive.model, index, width=1, max_length=self.config.history_length)

    def _encode(self, histories: Sequence[IntArray]) -> FloatArray:
        return self.retriever.encode(histories)

    @property
    def width(self) -> Width:
        """How wide a search is by default: a beam, or a price at which it stops.

        >>> model.width.most >= 1
        True
        """
        facts = self._fitted.facts
        return width_of(facts.get("width", facts))

    def recommend(
        self,
        history: Sequence[Hashable],
        k: int | None = None,
        *,
        exclude: bool | Iterable[Hashable] | None = None,
        allowed: Iterable[Hashable] | BoolArray | None = None,
        beam: int | None = None,
    ) -> Recommendations:
        """Return items for one history.

        Args:
            history: item keys, oldest first. A warning names the unknown ones, which are left out.
            k: items wanted; by default the model's.
            exclude: True leaves out the history, False nothing; keys leave out these items and no others. By default
                ``serving.filter_history``, which is True. A warning names the unknown ones.
            allowed: the only items that may be returned: their keys, or a mask bool [V] in the order of ``items``.
            beam: paths to visit; by default as many as the model's width says. It grows for a history for which it finds fewer than
                k items while more are there.

        Raises:
            InputError: no item of the history is known, keys are given as one text, or a mask has another length.
            ValueError: k or ``beam`` is below 1.

        Example:
            >>> found = model.recommend(["b1", "b2"], k=4)
            >>> len(found.items), "b1" in found.items
            (4, False)
            >>> "b1" in model.recommend(["b1", "b2"], k=12, exclude=False).items
            True
            >>> sorted(model.recommend(["b1", "b2"], allowed=["b3", "c4"]).items)
            ['b3', 'c4']
        """
        return self.recommend_all([history], k, exclude=exclude, allowed=allowed, beam=beam)[0]

    def recommend_all(
        self,
        histories: Sequence[Sequence[Hashable]],
        k: int | None = None,
        *,
        exclude: bool | Iterable[Hashable] | None = None,
        allowed: Iterable[Hashable] | BoolArray | None = None,
        beam: int | None = None,
    ) -> list[Recommendations]:
        """Return items for many histories at once; arguments and errors as for :meth:`recommend`.

        Example:
            >>> lists = model.recommend_all([["a1", "a2"], ["d3"]], k=5)
            >>> [len(found.items) for found in lists]
            [5, 5]
        """
        k = self.k if k is None else k
        known = [self._known(history) for history in histories]
        exclude = self.config.serving.filter_history if exclude is None else exclude
        if isinstance(exclude, bool):
            barred = known if exclude else [np.zeros(0, np.int64)] * len(known)
        else:
            ids, unknown = self._fitted.keys.ids(exclude)
            _warn_unknown(unknown, "excluded items")
            barred = [ids] * len(known)
        found = self.retriever.retrieve(
            self._encode(known),
            k,
            width=self.width if beam is None else beam,
            excluded=[items.tolist() for items in barred],
            allowed=self._allowed(allowed),
            full=True,
        )
        return [
            Recommendations(self._fitted.keys.of(item_k), score_k[item_k >= 0])
            for item_k, score_k in zip(found.item_Uk, found.score_Uk, strict=True)
        ]

    def _allowed(self, allowed: Iterable[Hashable] | BoolArray | None) -> Allowed | None:
        if allowed is None:
            return None
        num_items = len(self.items)
        if isinstance(allowed, np.ndarray) and allowed.dtype == np.bool_:
            if allowed.shape != (num_items,):
                raise InputError(f"allowed has shape {allowed.shape}, the model {num_items} items")
            return Allowed(allowed)
        ids, unknown = self._fitted.keys.ids(allowed)
        _warn_unknown(unknown, "allowed items")
        return Allowed.of(ids, num_items)

    def _known(self, history: Sequence[Hashable]) -> IntArray:
        ids, unknown = self._fitted.keys.ids(history)
        if not len(ids):
            named = ", ".join(map(repr, unknown[:NAMED])) or "it is empty"
            raise InputError(f"no item of the history is known ({named}): give keys as in the interactions")
        _warn_unknown(unknown, "history items")
        return ids

    def explain(self, history: Sequence[Hashable], *, beam: int | None = None) -> list[VisitedPath]:
        """Return the paths that a history's search visits, in the order of probability per item.

        Args:
            history: item keys, oldest first.
            beam: paths to visit; by default as many as the model's width says.

        Raises:
            InputError: no item of the history is known.

        Example:
            >>> paths = model.explain(["c1", "c2"], beam=3)
            >>> len(paths), all(0 < path.probability <= 1 for path in paths)
            (3, True)
            >>> book = paths[0].items[0]
            >>> book in model.recommend(["c1", "c2"], k=48, exclude=False).items
            True
        """
        user_1E = self._encode([self._known(history)])
        found = self.retriever.search(user_1E, self.width if beam is None else beam)
        space = self._fitted.model.space
        return [
            VisitedPath(
                tuple(space.decode(path_id).tolist()),
                float(np.exp(log_probability)),
                self._fitted.keys.of(self.retriever.index.items(int(path_id))[:items]),
            )
            for path_id, log_probability, items in zip(
                found.path_UB[0], found.log_prob_UB[0], found.items_UB[0], strict=True
            )
            if path_id >= 0
        ]

    def save(self, path: str | Path) -> None:
        """Write the model to a folder, in one step; a model that is there is replaced.

        Raises:
            ConfigError: the model is not fitted, or an item's key is neither a string nor an int.
            InputError: something else is there.

        Example:
            >>> import tempfile
            >>> folder = tempfile.mkdtemp() + "/library"
            >>> model.save(folder)
            >>> again = DeepRetrieval.load(folder)
            >>> again.recommend(["a1", "a2"]).items == model.recommend(["a1", "a2"]).items
            True
        """
        fitted = self._fitted
        facts = {
            **fitted.facts,
            "k": self.k,
            "seed": self.seed,
            "config": self.config.model_dump(mode="json"),
        }
        Archive(fitted.model, fitted.path_VJ, fitted.keys, facts).save(path)

    @classmethod
    def load(cls, path: str | Path) -> DeepRetrieval:
        """Return a model that :meth:`save` wrote. Every file is checked against its sha256.

        Raises:
            InputError: nothing was saved there, or a file is missing or was changed.

        Example:
            >>> DeepRetrieval.load(folder).items == model.items
            True
        """
        archive = Archive.load(path)
        facts = archive.facts
        model = cls(
            facts["k"],
            facts["seed"],
            config=LearningConfig.model_validate(facts["config"]),
        )
        model._serve(archive)
        return model


def _configured(config: LearningConfig | None, k: int, seed: int, sections: dict[str, Any]) -> LearningConfig:
    """Return the configuration of one process."""
    try:
        config = config or LearningConfig.model_validate(sections)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        allowed = ", ".join(LearningConfig.model_fields)
        hint = f"; sections are {allowed}" if len(first["loc"]) == 1 else ""
        raise ConfigError(f"{key}: {first['msg']}{hint}") from error
    training = config.training.model_copy(update={"num_processes": 1})
    serving = config.serving.model_copy(update={"k": k})
    return config.model_copy(update={"seed": seed, "training": training, "serving": serving})


def _warn_unknown(unknown: Sequence[Hashable], what: str) -> None:
    if unknown:
        named = ", ".join(map(repr, unknown[:NAMED])) + (", …" if len(unknown) > NAMED else "")
        warnings.warn(f"{len(unknown)} {what} are unknown and left out: {named}", stacklevel=4)


@contextmanager
def _told(progress: bool) -> Iterator[None]:
    """Write what this package logs to stderr, if it is wanted."""
    logger, handler = logging.getLogger("dr_core"), logging.StreamHandler()
    level = logger.level
    if progress:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
