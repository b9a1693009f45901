"""How a log is to be read: spellings, contradictions, and options that would do nothing."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from dr_core.errors import InputError
from pipelines.datasets.dataset_config import DatasetConfig
from pipelines.datasets.interactions import resolve

HEADER = "user,item,rating,timestamp\n"
MOVIELENS = "userId,movieId,rating,timestamp\n1,2,3.5,978300760\n"
AMAZON = "A2IIIDRK3PRRZY,0000000116,4.0,1395619200\nAH2L9G3DQHHAJ,B00004SPLX,1.0,1395619200\n"


@pytest.mark.parametrize(
    ("written", "meant"),
    [("\\t", "\t"), ("\t", "\t"), ("tab", "\t"), ("TAB", "\t"), ("|", "|"), ("pipe", "|"), (";", ";"), ("::", "::"),
     ("space", " "), ("\\x01", "\x01"), ("\\u0001", "\x01"), ("^A", "\x01"), ("auto", "auto"), ("~", "~")],
)  # fmt: skip
def test_a_delimiter_has_its_usual_spellings(written: str, meant: str) -> None:
    assert DatasetConfig(delimiter=written).delimiter == meant


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delimiter": ""}, "cannot be empty; write tab"),
        ({"delimiter": None}, "cannot be empty"),
        ({"delimiter": '"'}, "no quote"),
        ({"encoding": "latin-99"}, "'latin-99' is no known encoding; for example utf-8, latin-1"),
        ({"column_names": ["a", "b", "a"]}, "names 'a' twice"),
    ],
)
def test_what_no_file_can_have_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DatasetConfig.model_validate(options)


def resolved(folder: Path, name: str, text: str, **options: object) -> DatasetConfig:
    (folder / name).write_text(text)
    return resolve(DatasetConfig.model_validate(options | {"path": str(folder / name)}))


def test_configured_columns_win_over_what_contents_are_taken_for(tmp_path: Path) -> None:
    mine = {"user": "movieId", "item": "userId", "time": "timestamp"}
    config = resolved(tmp_path, "ratings.csv", MOVIELENS, columns=mine)
    assert (config.format, config.columns.user) == ("csv", "movieId")
    config = resolved(tmp_path, "ratings.csv", MOVIELENS)
    assert (config.format, config.columns.user, config.columns.time) == ("movielens", "userId", "timestamp")
    config = resolved(tmp_path, "ratings.csv", MOVIELENS, columns={"user": "userId", "item": "movieId"})
    assert config.format == "movielens"
    config = resolved(
        tmp_path, "ratings_2024.csv", "item," + HEADER.replace("item,", ""), columns={"time": "timestamp"}
    )
    assert (config.format, config.columns.item) == ("csv", "item")
    names = ["item", "user", "rating", "timestamp"]
    config = resolved(tmp_path, "r.csv", AMAZON, column_names=names, columns={"time": "timestamp"})
    assert (config.format, config.column_names) == ("csv", tuple(names))
    config = resolved(tmp_path, "r.csv", AMAZON)
    assert (config.format, config.column_names[:2]) == ("amazon", ("user", "item"))
    assert resolve(config) == config


def test_a_catalogue_of_movielens_is_found_beside_its_ratings(tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n2,Two,Drama\n")
    (tmp_path / "ratings.csv").write_text(MOVIELENS)
    config = resolve(DatasetConfig(path=str(tmp_path)))
    assert config.path == f"{tmp_path}/ratings.csv"
    assert config.catalogue == f"{tmp_path}/movies.csv"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (HEADER + "u,i,5,9\n", {"format": "parquet"}, "is csv by its contents, but dataset.format is parquet"),
        ('{"user": "u"}\n', {"format": "csv"}, "is json by its contents"),
        ('{"user": "u"}\n', {"delimiter": "tab"}, "dataset.delimiter has no effect: the log is json"),
        ('{"user": "u"}\n', {"column_names": ["user"]}, "dataset.column_names has no effect"),
        (HEADER, {"format": "movielens"}, r"has columns user, item, rating, timestamp; MovieLens has .*dataset.format=csv"),
        (HEADER, {"format": "amazon"}, "has 4 columns; Amazon ratings have user,item,rating,timestamp without a header"),
        ("u1,i1,5,1704070940\n", {"format": "amazon"}, r"which of the first two columns is the user .*dataset.column_names="),
        (MOVIELENS, {"format": "movielens", "columns": {"user": "me"}}, "dataset.columns.user=me, but movielens files say that"),
        (MOVIELENS, {"format": "movielens", "time_unit": "milliseconds"}, "dataset.time_unit=milliseconds, but movielens"),
    ],
)  # fmt: skip
def test_contents_and_configuration_must_agree(
    tmp_path: Path, text: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        resolved(tmp_path, "log", text, **options)
    assert "\n" not in str(caught.value)


def test_the_order_of_amazon_columns_can_be_said(tmp_path: Path) -> None:
    names = ("item", "user", "rating", "timestamp")
    config = resolved(tmp_path, "x.csv", "p1,u1,5,1704070940\n", format="amazon", column_names=names)
    assert (config.format, config.column_names, config.columns.user) == ("amazon", names, "user")
