"""The run's configuration: every component's own, composed; read from YAML, overridden by ``--set a.b=value``."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Self

from pydantic import Field, model_validator

from dr_core.config import Config
from dr_core.learning.config import LearningConfig
from dr_core.model.encoder import AttentionEncoder
from pipelines.datasets.interactions import DatasetConfig
from pipelines.stages.ingest.row_rules import PreprocessConfig
from pipelines.stages.ingest.split import SplitConfig
from pipelines.storage.run_record import NAME


class SparkConfig(Config):
    """The Spark session; what spark-submit sets wins over it."""

    master: str | None = None
    """For example ``local[2]``; none leaves it to spark-submit, else ``local[*]``."""
    conf: dict[str, str] = Field({})
    """Further Spark settings by their own names."""


class EvaluationConfig(Config):
    """What is measured, and against what. Nothing here changes what is learned or served."""

    k: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Further list lengths to measure, beside `serving.k`, which the headlines show."""
    curve_shares: tuple[float, ...] = (0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.045, 0.05, 0.07, 0.1)
    """Candidates, as shares of the items, around which every method's curve has a point."""
    compare_at_shares: tuple[float, ...] = (0.01, 0.025, 0.05)
    """Candidates, as shares of the items, at which methods are compared pair by pair."""
    controls: bool = True
    """Train and measure `random_paths`, `embedding_paths` and the further variants."""
    other_paths_per_item: tuple[int, ...] = (2,)
    """Further variants `deep_retrieval_j<J>`: the same loop with another J, its own number of paths and the same budget."""
    random_start_rounds: int = Field(6, ge=0)
    """M-steps of the variant `deep_retrieval_random_start` (it needs more); 0 leaves it out."""
    bootstrap: int = Field(1000, ge=100)
    """Resamples of users for every interval."""


class RefreshConfig(Config):
    """The day after day one, and each day after that: one warm round from the live release."""

    joint_epochs: int = Field(6, ge=1)
    """Epochs of the E-step in which encoder, softmax and structure learn the new interval together."""
    final_epochs: int = Field(2, ge=1)
    """Epochs in which the structure model is fitted to the new mapping."""
    replay_share: float = Field(1.0, ge=0)
    """Users replayed from their kept histories, as a share of the users who are learnt, so that nothing is forgotten."""
    learning_rate: float = Field(3e-3, gt=0)
    """Peak rate of encoder and softmax. Much below day one's, or in fewer epochs, a day's news is hardly learned."""
    structure_learning_rate: float = Field(3e-3, gt=0)
    """Peak rate of the structure model."""
    rows_per_process: int = Field(3_000, ge=1)
    """Sample rows, times epochs, for which another local DDP rank is worth the seconds that it takes to start; what is
    learned does not depend on it."""
    half_life_days: float = Field(30.0, gt=0)
    """Days of events after which carried scores and N_v weigh half (paper: eta a merge; here eta = 2^(-days / half life))."""
    full_retrain_days: float = Field(28.0, gt=0)
    """Days since the last full run after which the trend page says that one is due."""
    keep_releases: int = Field(7, ge=1)
    """Releases whose tables and models maintenance keeps, besides the live one and its parent."""


class GatesConfig(Config):
    """What a refreshed release must pass before it goes live."""

    trailing_intervals: int = Field(7, ge=1)
    """Earlier intervals whose mean number of kept rows a day an interval is compared with."""
    min_rows_share: float = Field(0.3, ge=0)
    """Kept rows a day of the interval, at least, as a share of that mean."""
    max_rows_share: float = Field(3.0, gt=0)
    """Kept rows a day of the interval, at most, as a share of that mean."""
    max_unseen_share: float = Field(0.5, ge=0, le=1)
    """Events, at most, of items that the live release does not know."""
    min_users: int = Field(30, ge=1)
    """Held-out users with events in the interval; with fewer the quality gate does not judge."""
    max_recall_loss: float = Field(0.01, ge=0)
    """Recall, absolute, that a release may lose against the live one: refused when the whole 95 % interval of the
    difference lies below minus this."""


class RunConfig(LearningConfig):
    """Everything a run is determined by, with the seed."""

    name: str = Field(pattern=f"^{NAME}$")
    """Name of the world: demo folder, run ids, report title; letters, digits, ``.``, ``_`` and ``-``."""
    spark: SparkConfig = SparkConfig()
    """The session."""
    dataset: DatasetConfig
    """Where the logs are and what their columns mean."""
    preprocess: PreprocessConfig = PreprocessConfig()
    """What is kept of the logs."""
    split: SplitConfig = SplitConfig()
    """Who is tested, on what."""
    refresh: RefreshConfig = RefreshConfig()
    """Each day after."""
    gates: GatesConfig = GatesConfig()
    """What stands before publishing."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Measurement."""

    @property
    def list_lengths(self) -> tuple[int, ...]:
        """List lengths that are measured: the served one first."""
        return tuple(dict.fromkeys((self.serving.k, *self.evaluation.k)))

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        encoder, length = self.encoder, self.serving.history_length
        if encoder.kind == "attention" and length > AttentionEncoder.MAX_LENGTH:
            raise ValueError(
                f"encoder.kind=attention has {AttentionEncoder.MAX_LENGTH} positions, serving.history_length is {length}: shorten the"
                " history, or choose another encoder"
            )
        if encoder.context_cardinalities or encoder.num_numeric:
            raise ValueError(
                "encoder.context_cardinalities and encoder.num_numeric: the samples of a run hold no context features; leave"
                " both at their defaults"
            )
        return self

    def identity(self) -> str:
        """Return the sha256 of everything that determines what is learned, but for the seed's place among seeds.

        What is served, measured and done on later days does not: changing it trains nothing anew.
        """
        tree = self.model_dump(mode="json", exclude={"spark", "refresh", "gates", "evaluation", "serving"})
        tree["history_length"] = self.serving.history_length
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
