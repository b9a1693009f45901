"""``report/report_data.json``: what the page shows beyond the summary's figures. Every part may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field

from pipelines.report.schema import Number, Record, parse


class Part(Record):
    """A part of the report's data; keys it does not know are left alone, so that older pages can be redrawn."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class PathSizes(Part):
    """How many paths have how many items, at one moment of the run."""

    label: str
    histogram: tuple[tuple[int, int], ...] = ()
    """(items on a path, number of such paths)."""


class ActivityRow(Part):
    """One method's accuracy on the users of one activity bucket; fractions."""

    method: str
    bucket: str
    users: int | None = None
    precision: Number | None = None
    recall: Number | None = None
    overlap: Number | None = None


class PopularityRow(Part):
    """One method's behaviour on the items of one popularity bucket; fractions."""

    method: str
    bucket: str
    items: int | None = None
    share_of_recommendations: Number | None = None
    recall: Number | None = None


class BreadthRow(Part):
    """How much of the catalogue a method's lists reach; fractions, novelty in bits."""

    method: str
    coverage: Number | None = None
    creators: Number | None = None
    tail_share: Number | None = None
    novelty: Number | None = None


class Trial(Part):
    """One setting that was tried on the validation users."""

    settings: dict[str, Any] = Field(default_factory=dict)
    validation: Number | None = None
    seconds: Number | None = None


class BaselineRow(Part):
    """What fitting a method beside Deep Retrieval took."""

    method: str
    seconds: Number | None = None
    megabytes: Number | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    trials: tuple[Trial, ...] = ()


class SweepRow(Part):
    """One point of a sensitivity study, read at equal candidates; fractions, means over seeds."""

    study: str
    value: str
    overlap: Number | None = None
    candidate_recall: Number | None = None
    precision: Number | None = None
    brute_force_precision: Number | None = None
    recall: Number | None = None
    multiply_adds: Number | None = None
    beam: Number | None = None
    largest_path: Number | None = None
    occupied_paths: Number | None = None
    lift: Number | None = None
    nmi: Number | None = None
    seconds: Number | None = None


class PathItem(Part):
    """An item on an example path."""

    item_key: str
    title: str | None = None
    category: str | None = None
    num_events: Number | None = None


class ExamplePath(Part):
    """A path and (some of) its items."""

    path: tuple[int, ...]
    path_id: int | None = None
    size: int | None = None
    items: tuple[PathItem, ...] = ()


class VisitedPath(Part):
    """A path of the example user's beam."""

    path: tuple[int, ...] | str
    probability: Number | None = None
    size: int | None = None
    items: tuple[str, ...] = ()


class ExampleUser(Part):
    """One user from history to recommendations."""

    history: tuple[str, ...] = ()
    paths: tuple[VisitedPath, ...] = ()
    items: tuple[str, ...] = ()


class TrainingRow(Part):
    """One epoch of training."""

    phase: str
    epoch: int
    loss_softmax: Number | None = None
    loss_structure: Number | None = None
    rows_per_second: Number | None = None


class ReportData(Part):
    """The whole of ``report_data.json``."""

    dataset: str = ""
    config_text: str = ""
    notes: tuple[str, ...] = ()
    path_sizes: tuple[PathSizes, ...] = ()
    by_activity: tuple[ActivityRow, ...] = ()
    by_popularity: tuple[PopularityRow, ...] = ()
    breadth: tuple[BreadthRow, ...] = ()
    baselines: tuple[BaselineRow, ...] = ()
    sweep: tuple[SweepRow, ...] = ()
    example_paths: tuple[ExamplePath, ...] = ()
    example_user: ExampleUser | None = None
    training: tuple[TrainingRow, ...] = ()


def parse_data(data: Mapping[str, Any]) -> ReportData:
    """Return the report's data as a checked model; keys that are null count as missing.

    Raises:
        InputError: a part has the wrong shape; the message names it.
    """
    return parse(ReportData, {key: value for key, value in data.items() if value is not None}, "report_data.json")
