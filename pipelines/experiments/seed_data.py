"""What one seed's methods learn from, choose on and are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from pyspark.sql import functions as F

from dr_core.arrays import FloatArray, IntArray
from dr_core.baselines.base import Events, ItemFeatures
from dr_core.evaluation.evaluator import Evaluator, Point
from dr_core.item_lists import ItemLists
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.evaluation.measure import evaluator_of, most_candidates
from pipelines.evaluation.measurement import Measurement
from pipelines.evaluation.methods import SUBJECT
from pipelines.stages.ingest.split import training_interactions

Measured = tuple[Point, IntArray]
"""A point and the lists [U, k] that it recommends, as the headline filters them."""
Points = dict[str, list[Measured]]


class SeedData:
    """One seed's users, events and measurement, each read once."""

    def __init__(self, run: LearnedRun) -> None:
        self.run, self.config = run, run.config
        self.k, self.filtered = run.config.serving.k, run.config.serving.filter_history

    @property
    def most_candidates(self) -> float:
        """Candidates a user at which curves end."""
        return most_candidates(self.run)

    @cached_property
    def active(self) -> IntArray:
        """The items that may be returned, ascending."""
        return np.setdiff1d(np.arange(self.run.num_items), self.run.retired)

    @cached_property
    def evaluator(self) -> Evaluator:
        """The test users, and the brute force that overlap is counted against."""
        return evaluator_of(self.run, self.run.learned.model, self.run.test, self.most_candidates)

    @cached_property
    def measured(self) -> Measurement:
        """Deep Retrieval's own measurement: the width it is served with, and the candidates that others are read at."""
        return Measurement.load(self.run.workdir, self.run.run.run_id)

    @property
    def served(self) -> Point:
        """Deep Retrieval as it is served."""
        return self.measured.operating[SUBJECT]

    @cached_property
    def validation(self) -> tuple[ItemLists, ItemLists]:
        """Histories and truths on which settings are chosen."""
        users = self.run.validation
        return ItemLists.from_rows(users.histories), ItemLists.from_rows(users.truths)

    def encode(self, histories: Sequence[IntArray]) -> FloatArray:
        """Return the states of histories under Deep Retrieval's encoder, float32 [U, E]; newer items are left out."""
        retriever = self.evaluator.retriever_of(self.run.learned)
        return retriever.encode(ItemLists.from_rows(histories).known(retriever.num_items))

    @cached_property
    def events(self) -> Events:
        """What the baselines learn from."""
        ordered = training_interactions(self.run.spark, self.run.workdir).select(
            "user", "item_id", "event_time", "event_order", "weight"
        )
        frame = (
            ordered.sort("user", "event_time", "event_order", "item_id")
            .select("user", "item_id", "weight", F.col("event_time").cast("double").alias("seconds"))
            .toPandas()
        )
        _, sizes = np.unique(frame["user"].to_numpy(), return_counts=True)
        offsets = np.r_[0, np.cumsum(sizes)].astype(np.int64)
        return Events(
            ItemLists(offsets, frame["item_id"].to_numpy(np.int64)),
            self.run.num_items,
            frame["weight"].to_numpy(np.float32),
            self._features(),
            frame["seconds"].to_numpy(np.float64)[offsets[1:] - 1],
        )

    def _features(self) -> ItemFeatures:
        names = ("category", "creator")
        items = self.run.workdir.read(self.run.spark, "items").select("item_id", *names).sort("item_id").toPandas()
        values, counts = {}, {}
        for name in names:
            lists = [[value for value in str(text or "").split("|") if value] for text in items[name].fillna("")]
            known = {value: number for number, value in enumerate(sorted({value for row in lists for value in row}))}
            if known:
                values[name] = ItemLists.from_rows([[known[value] for value in row] for row in lists])
                counts[name] = len(known)
        return ItemFeatures(values, counts, np.zeros((len(items), 0), dtype=np.float32))

    def listed(self, point: Point, plain_Uk: IntArray, filtered_Uk: IntArray) -> Measured:
        """Fill in a point's figures; return it with the headline lists."""
        self.evaluator.measure_lists(point, plain_Uk, filtered_Uk)
        return point, (filtered_Uk if self.filtered else plain_Uk)[:, : self.k]
