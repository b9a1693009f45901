"""Whatever format a log has, its rows are counted as the test that wrote them counts them."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from pipelines.datasets.interactions import DatasetConfig
from pipelines.stages.ingest.preprocess import preprocess
from pipelines.stages.ingest.row_rules import PreprocessConfig
from pipelines.stages.ingest.split import SplitConfig
from pipelines.storage.workdir import Workdir

NAMES = ("user", "item", "time", "stars")
Row = tuple[str, str, str, str]


def rows() -> list[Row]:
    """Eighty rows; one names no user, one no time that can be read, one stands there twice."""
    written = [(f"u{n % 6}", f"i{n % 7}", str(1_704_067_200 + 61 * n), str(1 + n % 5)) for n in range(80)]
    written[10] = ("", *written[10][1:])
    written[20] = (*written[20][:2], "soon", written[20][3])
    written[30] = written[29]
    return written


def parts_of_which_one_has_no_header(folder: Path, written: Sequence[Row]) -> None:
    lines = [",".join(row) + "\n" for row in written]
    (folder / "a.csv").write_text(",".join(NAMES) + "\n" + "".join(lines[:50]))
    (folder / "b.csv.gz").write_bytes(gzip.compress("".join(lines[50:]).encode()))


def json_lines(folder: Path, written: Sequence[Row]) -> None:
    objects = [dict(zip(NAMES, row, strict=True)) for row in written]
    (folder / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in objects))


def parquet_files(folder: Path, written: Sequence[Row]) -> None:
    for at, part in enumerate((written[:33], written[33:])):
        columns = dict(zip(NAMES, (list(column) for column in zip(*part, strict=True)), strict=True))
        pq.write_table(pa.table(columns), folder / f"{at}.parquet")


@pytest.mark.parametrize("write", [parts_of_which_one_has_no_header, json_lines, parquet_files])
def test_rows_in_are_kept_quarantined_or_filtered(
    spark: SparkSession, tmp_path: Path, write: Callable[[Path, Sequence[Row]], None]
) -> None:
    written, log = rows(), tmp_path / "log"
    log.mkdir()
    write(log, written)
    disliked = sum(int(stars) < 3 for user, _, time, stars in set(written) if user and time != "soon")
    summary = preprocess(
        spark,
        Workdir(str(tmp_path / "W")),
        DatasetConfig.model_validate({"path": str(log), "columns": {"time": "time", "rating": "stars"}}),
        PreprocessConfig.model_validate({"positive": {"kind": "threshold", "at_least": 3}}),
        SplitConfig(num_test=1, num_validation=1, min_events=2),
        history_length=5,
        run_id="r",
    )
    assert summary.rows_in == len(written) == summary.kept + summary.quarantined + summary.filtered
    assert summary.reasons == {
        "null_user": 1, "unparsable_time": 1, "duplicate_row": 1, "not_positive": disliked,
    }  # fmt: skip
    assert summary.kept == len(written) - 3 - disliked
