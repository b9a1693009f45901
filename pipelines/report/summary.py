"""``report/summary.json``: the figures of a run or comparison, as other programs read them.

Fractions, never percent; null where a field does not apply. ``results`` and ``curves`` are means over seeds;
``stages``, ``rounds``, ``structure`` and ``health`` are the first seed's, whose release goes live.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from dr_core.errors import InputError
from pipelines.report.schema import Number, Record, parse
from pipelines.storage.json_text import to_json


class DataCounts(Record):
    """What was learned from and measured on."""

    users: int | None = None
    items: int | None = None
    """Items with at least one kept event."""
    events: int | None = None
    train_users: int | None = None
    test_users: int | None = None
    quarantined: int | None = None
    """Rows set aside as bad, each with its reason."""
    filtered: int | None = None
    """Rows left out on purpose (rating too low, user too short)."""


class Structure(Record):
    """The chosen structure."""

    K: int | None = None
    """Nodes a layer; of the first one where layers differ."""
    D: int | None = None
    """Layers."""
    nodes: tuple[int, ...] | None = None
    """Nodes of each layer; null in a summary that is older than layers of different sizes."""
    J: int | None = None
    """Paths an item."""
    S: int | None = None
    """Best candidate paths kept an item."""
    alpha: Number | None = None
    """Weight of the path-size penalty."""
    beam: Number | None = None
    """Paths a user visits at retrieval, the mean where that differs from user to user."""
    price: Number | None = None
    """ln of the mean probability of an item from which on a path is visited, where a search stops by that."""
    opening: Number | None = None
    """ln of the probability from which on a prefix is opened; none where all are."""
    most: Number | None = None
    """Candidates of one user at most."""
    m_step: str | None = None
    """Which M-step ran, and why."""
    normaliser: str | None = None
    """What p(c|x) is normalised over, and why."""
    path_vectors: str | None = None
    """Whether paths have vectors of their own, and why."""
    search: str | None = None
    """What a search ranks paths by, and why."""

    @property
    def is_even(self) -> bool:
        """Whether all layers have K nodes."""
        return self.nodes is None or len(set(self.nodes)) == 1

    @property
    def num_paths(self) -> int | None:
        """Possible paths, where the structure is known."""
        if self.nodes is not None:
            return math.prod(self.nodes)
        return None if self.K is None or self.D is None else self.K**self.D


class Stage(Record):
    """One stage that ran."""

    name: str
    seconds: Number | None = None
    rows_in: int | None = None
    rows_out: int | None = None


class Round(Record):
    """One EM round that ended in an M-step."""

    round: int
    loss_structure: Number | None = None
    """Mean negative log-likelihood of the paths after the E-step, nats a target."""
    loss_softmax: Number | None = None
    surrogate_before: Number | None = None
    """Penalised surrogate that the M-step maximises, with the old paths."""
    surrogate_after_descent: Number | None = None
    """With the paths that the coordinate descent chose; it never falls below ``surrogate_before``."""
    surrogate_after: Number | None = None
    """With the paths in use: the refinement after the descent follows the softmax and may lower it."""
    likelihood_before: Number | None = None
    """True mean log-likelihood with the old paths."""
    likelihood_after: Number | None = None
    items_moved: int | None = None
    occupied_paths: int | None = None
    largest_path: int | None = None
    validation_recall: Number | None = None


class Result(Record):
    """One method at one (filtered, k)."""

    method: str
    filtered: bool
    """True where items of the history are left out of what is returned."""
    k: int
    users: int | None = None
    precision: Number | None = None
    recall: Number | None = None
    f1: Number | None = None
    ndcg: Number | None = None
    hit_rate: Number | None = None
    overlap: Number | None = None
    """Share of the brute-force top k that the method returns."""
    candidates: Number | None = None
    """Mean a user, after de-duplication and before the history filter."""
    candidate_recall: Number | None = None
    beam: Number | None = None
    microseconds: Number | None = None
    """Time a user."""
    sd: Number | None = None
    """Standard deviation of precision over seeds."""
    interval: tuple[Number, Number] | None = None
    """Bootstrap 95 % interval of precision over users."""


class CurvePoint(Record):
    """One method at one (filtered, k) and one width of its search."""

    method: str
    filtered: bool
    k: int
    beam: Number | None = None
    candidates: Number | None = None
    precision: Number | None = None
    recall: Number | None = None
    overlap: Number | None = None
    candidate_recall: Number | None = None
    multiply_adds: Number | None = None
    """Counted, of finding and reranking the candidates of a user, the encoder left out."""
    microseconds: Number | None = None


class Health(Record):
    """How evenly the items lie on the paths."""

    occupied_paths: int | None = None
    largest_path: int | None = None
    mean_path: Number | None = None
    gini: Number | None = None
    normalized_entropy: Number | None = None
    items_without_path: int | None = None


class Difference(Record):
    """A paired difference between two methods, read at equal cost."""

    method: str
    against: str
    metric: str
    filtered: bool
    k: int
    axis: str | None = None
    """What is held equal: ``candidates``, ``multiply_adds``; null where each is taken as it is."""
    at: Number | None = None
    """Where on the axis."""
    mean: Number | None = None
    """``method`` minus ``against``, mean over users."""
    low: Number | None = None
    high: Number | None = None


class Summary(Record):
    """The whole of ``summary.json``."""

    run_id: str
    config_hash: str | None = None
    release_id: str | None = None
    seeds: int = 1
    """How many seeds were run."""
    data: DataCounts = DataCounts()
    structure: Structure = Structure()
    stages: tuple[Stage, ...] = ()
    rounds: tuple[Round, ...] = ()
    results: tuple[Result, ...] = ()
    curves: tuple[CurvePoint, ...] = ()
    health: Health = Health()
    differences: tuple[Difference, ...] = ()


def parse_summary(summary: Summary | Mapping[str, Any]) -> Summary:
    """Return the summary as a checked model.

    Raises:
        InputError: a key is unknown or missing, or a value has the wrong type; the message names each.
    """
    return parse(Summary, summary, "summary.json")


def write_summary(summary: Summary | Mapping[str, Any]) -> str:
    """Return the text of ``summary.json``: every key present, null where a figure is missing, NaN or infinite.

    Raises:
        InputError: as :func:`parse_summary`.
    """
    return to_json(parse_summary(summary).model_dump(mode="json"), indent=1)


def read_summary(text: str) -> Summary:
    """Return the summary that :func:`write_summary` wrote.

    Raises:
        InputError: the text is not JSON, or not a summary.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"summary.json is not JSON (line {error.lineno}): {error.msg}") from error
    return parse_summary(content)
