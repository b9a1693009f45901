"""Columns that the rules of an ingest ask for and that no setting names: refused together with those that a log lacks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dr_core.errors import ConfigError, InputError
from pipelines.datasets.interactions import DatasetConfig
from pipelines.stages.ingest.row_rules import AllEvents, ColumnWeight, PreprocessConfig
from pipelines.stages.ingest.split import SplitConfig


def unnamed_columns(dataset: DatasetConfig, config: PreprocessConfig, split: SplitConfig) -> list[str]:
    """Return a sentence for each rule whose column is not named.

    Args:
        dataset: resolved, so that the columns of known formats are named.
        config, split: the rules.
    """
    asked: dict[str, str] = {}
    if not isinstance(config.positive, AllEvents):
        asked[f"preprocess.positive (kind {config.positive.kind})"] = config.positive.column
    if isinstance(config.weight, ColumnWeight):
        asked["preprocess.weight (kind column)"] = config.weight.column
    if split.users == "column":
        asked["split.users (column)"] = "split"
    return [
        f"{rule} needs the column of the {role}: set dataset.columns.{role}"
        for rule, role in asked.items()
        if getattr(dataset.columns, role) is None
    ]


@contextmanager
def all_needs_told(dataset: DatasetConfig, config: PreprocessConfig, split: SplitConfig) -> Iterator[None]:
    """Add to what reading the log refuses what the rules lack, so that one refusal says everything.

    Raises:
        InputError: the log was refused.
        ConfigError: it was not, and a rule's column is not named.
    """
    unnamed = unnamed_columns(dataset, config, split)
    try:
        yield
    except InputError as error:
        also = ["", *unnamed]
        if "no column" in str(error):
            also.append(f"`dr init --logs {dataset.path}` proposes a configuration for this log")
        raise InputError("; ".join([str(error), *also[1:]])) from error
    if unnamed:
        raise ConfigError("; ".join([*unnamed, f"or let `dr init --logs {dataset.path}` propose a configuration"]))
