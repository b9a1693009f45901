"""The line of an ingest says where every row went, by reason."""

import logging
from pathlib import Path
from typing import Any

import pytest

from pipelines.flows.ingest_line import ingest_line
from pipelines.storage.run_record import Run
from pipelines.storage.workdir import Workdir

GOOD = {"rows_in": 840, "kept": 840, "quarantined": 0, "filtered": 0, "reasons": {}, "items": 50}
MIXED = GOOD | {
    "rows_in": 2000,
    "quarantined": 60,
    "filtered": 1100,
    "reasons": {"null_user": 10, "not_positive": 1100, "unparsable_time": 50},
}


@pytest.mark.parametrize(
    ("summary", "line"),
    [
        (GOOD, "840 rows in, 840 kept, 0 quarantined, 0 filtered"),
        (
            MIXED,
            "2,000 rows in, 840 kept, 60 quarantined (unparsable_time 50, null_user 10), 1,100 filtered (not_positive 1,100)",
        ),
        (
            GOOD
            | {"catalogue_known": 48, "catalogue_reasons": {"catalogue_null_item": 2, "catalogue_duplicate_item": 1}},
            "840 rows in, 840 kept, 0 quarantined, 0 filtered; catalogue knows 48 of 50 items; 3 rows of the catalogue"
            " quarantined (catalogue_duplicate_item 1, catalogue_null_item 2)",
        ),
    ],
)
def test_a_line_says_where_the_rows_went(summary: dict[str, Any], line: str) -> None:
    assert ingest_line(summary) == line


def test_a_stage_tells_its_line_and_keeps_it_out_of_the_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(Workdir(str(tmp_path)), "r", "")
    with caplog.at_level(logging.INFO, "pipelines"):
        result = run.stage("preprocess", lambda: {**MIXED, "rows_out": 840, "told": ingest_line(MIXED)})
    assert "60 quarantined (unparsable_time 50, null_user 10)" in caplog.messages[-1]
    assert "told" not in result
    assert "told" not in run.record["stages"][0]["result"]
