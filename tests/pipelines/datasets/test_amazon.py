"""Amazon reviews: headerless CSV and JSON lines, compressed or not."""

import gzip
import json
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from dr_core.errors import InputError
from pipelines.datasets.interactions import DatasetConfig, read_catalogue, read_logs, resolve
from pipelines.datasets.rawframe import FILE_ORDER

RATINGS = [("AH2L9G3DQHHAJ", "0000000116", 4.0, 1019865600), ("A2IIIDRK3PRRZY", "0000000116", 1.0, 1395619200)]


def write_csv(folder: Path) -> Path:
    path = folder / "ratings_Books.csv"
    path.write_text("".join(f"{u},{i},{r},{t}\n" for u, i, r, t in RATINGS))
    return path


def write_json(folder: Path) -> Path:
    path = folder / "reviews_Books_5.json.gz"
    names = ("reviewerID", "asin", "overall", "unixReviewTime")
    with gzip.open(path, "wt") as file:
        for rating in RATINGS:
            file.write(json.dumps(dict(zip(names, rating, strict=True)) | {"reviewText": 'so "good"'}) + "\n")
    return path


@pytest.mark.parametrize("write", [write_csv, write_json])
def test_ratings_are_read(spark: SparkSession, tmp_path: Path, write: object) -> None:
    config = resolve(DatasetConfig(path=str(write(tmp_path))))  # type: ignore[operator]
    assert config.format == "amazon"
    assert config.has_time
    rows = read_logs(spark, config).orderBy(*FILE_ORDER).collect()
    assert [(row.user, row.item, row.rating, int(row.raw_time)) for row in rows] == RATINGS
    assert rows[1].event_time.timestamp() == 1395619200


def test_broken_json_line_is_marked(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "reviews.json"
    path.write_text('{"reviewerID": "u", "asin": "i", "overall": 5.0, "unixReviewTime": 1}\n{"reviewerID": "v", "as\n')
    rows = read_logs(spark, resolve(DatasetConfig(path=str(path)))).orderBy(*FILE_ORDER).collect()
    assert [row.is_malformed for row in rows] == [False, True]


def test_metadata_lines_of_both_releases(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "meta_Books.json"
    path.write_text(
        "{'asin': '1', 'title': \"The Cat's Tale\", 'categories': [['Books', 'Pets'], ['Gifts']], 'brand': 'B'}\n"
        '{"asin": "2", "title": "Two"}\n'
    )
    catalogue = read_catalogue(spark, DatasetConfig(format="amazon", catalogue=str(path)))
    assert catalogue is not None
    rows = catalogue.orderBy(*FILE_ORDER).select("item", "title", "category", "creator").collect()
    assert [tuple(row) for row in rows] == [("1", "The Cat's Tale", "Books|Pets|Gifts", "B"), ("2", "Two", None, None)]
    path.write_text(
        '{"parent_asin": "1", "title": "One", "categories": ["Books", "Pets"], "store": "S", "details": {"a": 1}}\n'
    )
    later = read_catalogue(spark, DatasetConfig(format="amazon", catalogue=str(path)))
    assert later is not None
    row = later.select("item", "title", "category", "creator").first()
    assert tuple(row) == ("1", "One", "Books|Pets", "S")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ratings_X.csv", "u,i,5\n", "has 3 columns; Amazon ratings have user,item,rating,timestamp"),
        ("x.json", '{"user": "u", "asin": "i"}\n', "no keys reviewerID, asin, .*keys found: user, asin"),
        ("x.json", "not json\n", "has 1 columns; Amazon ratings have user,item,rating,timestamp"),
        ("x.json", "", "holds no rows"),
    ],
)
def test_other_files_are_refused(spark: SparkSession, tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_logs(spark, resolve(DatasetConfig(path=str(tmp_path / name), format="amazon")))
