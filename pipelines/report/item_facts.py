"""Titles, categories and creators of the items that the report names: only of these."""

from __future__ import annotations

from typing import Any

import pandas as pd
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dr_core.arrays import IntArray
from pipelines.evaluation.learned_run import LearnedRun


def facts_of(run: LearnedRun, item_ids: IntArray) -> dict[int, dict[str, Any]]:
    """Return item_key, title, category and creator of some items, by item id."""
    rows = _only(run, item_ids).select("item_id", "item_key", "title", "category", "creator").collect()
    return {int(row["item_id"]): row.asDict() for row in rows}


def creators_of(run: LearnedRun, item_ids: IntArray) -> dict[int, str]:
    """Return the creators of some items, by item id; items without one are left out."""
    rows = _only(run, item_ids).where(F.col("creator") != "").select("item_id", "creator").collect()
    return {int(row["item_id"]): str(row["creator"]) for row in rows}


def count_creators(run: LearnedRun) -> int:
    """Return how many different creators the catalogue's items have."""
    named = run.workdir.read(run.spark, "items").where((F.col("creator") != "") & (F.col("item_id") < run.num_items))
    return int(named.select("creator").distinct().count())


def title(facts: dict[str, Any]) -> str:
    """Return what an item is called: its title, or else its key."""
    return str(facts["title"] or f"item {facts['item_key']}")


def _only(run: LearnedRun, item_ids: IntArray) -> DataFrame:
    wanted = run.spark.createDataFrame(pd.DataFrame({"item_id": item_ids[item_ids >= 0]}), "item_id long")
    return run.workdir.read(run.spark, "items").join(F.broadcast(wanted), on="item_id", how="inner")
