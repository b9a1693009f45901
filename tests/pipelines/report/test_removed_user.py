"""A report from which its example user was removed."""

import json
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.flows.delete_user import delete_user
from pipelines.report.build import write_report
from pipelines.storage.workdir import Workdir


@pytest.mark.parametrize("folder", [("report",), ("report", "r-1")])
def test_the_example_of_a_removed_user_is_drawn_no_longer(
    spark: SparkSession,
    tmp_path: Path,
    fake_summary: dict[str, Any],
    fake_data: dict[str, Any],
    folder: tuple[str, ...],
) -> None:
    """The page keeps everything else; removing another user changes nothing."""
    workdir = Workdir(str(tmp_path))
    histories = [("a", "test", [0], [1]), ("b", "test", [0], [1])]
    schema = "user string, role string, history array<int>, truth array<int>"
    workdir.write(spark.createDataFrame(histories, schema), "evaluation_histories")
    watched = "A film that nobody else has seen"
    fake_data["example_user"]["history"] = [watched]
    write_report(workdir, fake_summary, fake_data, folder=folder)
    before = workdir.read_text(*folder, "index.html")
    assert watched in before
    delete_user(spark, workdir, "elsewhere")
    assert workdir.read_text(*folder, "index.html") == before

    delete_user(spark, workdir, "a")
    page = workdir.read_text(*folder, "index.html")
    assert watched not in page
    assert 'id="example-user"' in before
    assert 'id="example-user"' not in page
    assert len(page) > len(before) / 2
    data = json.loads(workdir.read_text(*folder, "report_data.json"))
    assert data == json.loads(json.dumps(fake_data)) | {"example_user": None}
