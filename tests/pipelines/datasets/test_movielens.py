"""MovieLens files in both of their original shapes."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from dr_core.errors import InputError
from pipelines.datasets.interactions import DatasetConfig, read_catalogue, read_logs, resolve
from pipelines.datasets.rawframe import FILE_ORDER

RATINGS = [("1", "1193", 5.0, 978300760), ("1", "661", 3.0, 978302109), ("2", "1193", 4.5, 978298413)]


def write_old(folder: Path) -> None:
    (folder / "ratings.dat").write_text("".join(f"{u}::{i}::{r}::{t}\n" for u, i, r, t in RATINGS))
    movies = '661::James and the Giant Peach (1996)::Animation|Children\'s\n1193::Les Misérables "x": 1::Drama\n'
    (folder / "movies.dat").write_bytes(movies.encode("latin-1"))


def write_new(folder: Path) -> None:
    rows = "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in RATINGS)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows)
    movies = '661,James and the Giant Peach (1996),Animation|Children\'s\n1193,"Les Misérables ""x"": 1",Drama\n'
    (folder / "movies.csv").write_text("movieId,title,genres\n" + movies)


@pytest.mark.parametrize("write", [write_old, write_new])
def test_folder_is_read_with_its_catalogue(spark: SparkSession, tmp_path: Path, write: object) -> None:
    write(tmp_path)  # type: ignore[operator]
    config = resolve(DatasetConfig(path=str(tmp_path)))
    assert config.format == "movielens"
    assert config.has_time
    rows = read_logs(spark, config).orderBy(*FILE_ORDER).collect()
    assert [(row.user, row.item, row.rating, int(row.raw_time)) for row in rows] == RATINGS
    assert rows[0].event_time.timestamp() == 978300760
    assert not any(row.is_malformed for row in rows)
    catalogue = read_catalogue(spark, config)
    assert catalogue is not None
    movies = catalogue.orderBy(*FILE_ORDER).select("item", "title", "category").collect()
    assert [tuple(movie) for movie in movies] == [
        ("661", "James and the Giant Peach (1996)", "Animation|Children's"),
        ("1193", 'Les Misérables "x": 1', "Drama"),
    ]


def test_other_columns_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("user,movie,stars,when\n1,2,3,4\n")
    with pytest.raises(InputError, match=r"has columns user, movie, stars, when; MovieLens has userId"):
        read_logs(spark, resolve(DatasetConfig(path=str(tmp_path), format="movielens")))
    with pytest.raises(InputError, match=r"holds none of ratings\.csv"):
        resolve(DatasetConfig(path=str(tmp_path.parent), format="movielens"))
