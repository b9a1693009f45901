"""The gate before publishing that compares the index with the mapping."""

from collections import Counter
from pathlib import Path

import numpy as np
from pyspark.sql import SparkSession

from pipelines.flows.gates import judge_integrity
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir, small_frame

NUM_ITEMS, NUM_PATHS, RETIRED = 30, 7, 4


def test_the_index_is_compared_place_by_place(spark: SparkSession, tmp_path: Path) -> None:
    """What is missing, what is too much and what stands twice count, as do active items on no path; retired items do not."""
    workdir, rng = Workdir(str(tmp_path)), np.random.default_rng(0)
    items = [(item, str(item), None, item >= RETIRED, None, None, None) for item in range(NUM_ITEMS)]
    workdir.write(small_frame(spark, items, SCHEMAS["items"]), "items")
    places = [(item, int(path)) for item in range(NUM_ITEMS - 2) for path in rng.choice(NUM_PATHS, 2, replace=False)]
    wanted = [place for place in places if place[0] >= RETIRED]
    paths = {
        "whole": wanted,
        "one is missing": wanted[1:],
        "one moved": [*wanted[1:], (wanted[0][0], NUM_PATHS)],
        "one stands twice": [*wanted, wanted[3]],
        "a retired one is left": [*wanted, places[0]],
        "empty": [],
    }
    mapping = [(release, item, 0, path, 0.0) for release in paths for item, path in places]
    index = [
        (release, path, [item for item, of_item in found if of_item == path])
        for release, found in paths.items()
        for path in range(NUM_PATHS + 1)
    ]
    workdir.write(small_frame(spark, mapping, SCHEMAS["item_paths"]), "item_paths")
    workdir.write(small_frame(spark, index, SCHEMAS["path_items"]), "path_items")
    for release, found in paths.items():
        forward, inverse = Counter(wanted), Counter(found)
        expected = (forward - inverse).total() + (inverse - forward).total() + 2
        (verdict,) = judge_integrity(spark, workdir, release)
        assert (verdict.figure, verdict.passed) == (expected, False), release
        assert f"{expected - 2} places differ" in verdict.text
