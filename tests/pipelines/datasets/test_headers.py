"""Every file's columns are found by name; what cannot be told is refused with all that is missing."""

import logging
from pathlib import Path

import pytest

from dr_core.errors import InputError
from pipelines.datasets.headers import Part, plan_parts
from pipelines.datasets.paths import find_source
from pipelines.datasets.source_frames import safe_names
from pipelines.datasets.text import decode, read_heads

WANTED = {"dataset.columns.user": "user", "dataset.columns.item": "item", "dataset.columns.time": "ts"}
HEADER = "user,item,ts\n"
ROWS = "u1,i1,17\nu2,i2,18\n"


def plan(folder: Path, files: dict[str, str], **options: object) -> list[Part]:
    for name, text in files.items():
        (folder / name).write_text(text)
    source = find_source(str(folder), "log")
    heads = [decode(head, "utf-8", "log", is_given=False) for head in read_heads(source)]
    return plan_parts(source, heads, WANTED, **options)  # type: ignore[arg-type]


def shapes(parts: list[Part]) -> list[tuple[list[str], tuple[str, ...], bool]]:
    return [([file.name for file in part.files], part.names, part.has_header) for part in parts]


def test_other_orders_and_further_columns_are_parts_of_their_own(tmp_path: Path) -> None:
    files = {
        "a.csv": HEADER + ROWS, "b.csv": "item,user,ts\ni1,u1,17\n", "c.csv": "user,x,item,ts\nu1,1,i1,17\n",
        "d.csv": '"user","item","ts"\nu1,i1,17\n', "e.csv": "\ufeffuser,item,ts\nu1,i1,17\n", "f.csv": HEADER, "g.csv": "",
        "h.csv": "user;item;ts\nu1;i1;17\n",
    }  # fmt: skip
    parts = plan(tmp_path, files)
    assert shapes(parts) == [
        (["a.csv", "d.csv", "e.csv", "f.csv"], ("user", "item", "ts"), True),
        (["b.csv"], ("item", "user", "ts"), True),
        (["c.csv"], ("user", "x", "item", "ts"), True),
        (["h.csv"], ("user", "item", "ts"), True),
    ]
    assert [part.delimiter for part in parts] == [",", ",", ",", ";"]


def test_a_file_cut_in_pieces_loses_no_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pipelines"):
        parts = plan(tmp_path, {"0.csv": ROWS, "a.csv": HEADER + ROWS, "b.csv": ROWS, "c.csv": "u9,i9,19"})
    assert shapes(parts) == [
        (["a.csv"], ("user", "item", "ts"), True),
        (["0.csv", "b.csv", "c.csv"], ("user", "item", "ts"), False),
    ]
    assert [record.message for record in caplog.records] == [
        "0.csv, b.csv, c.csv: without a header, read as the continuation of a.csv"
    ]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("user,thing,ts\nu1,i1,17\n", r"b.csv has no column 'item' \(dataset.columns.item\); .*unlike a.csv \(user, item, ts\)"),
        ("account,product,moment\nu1,i1,17\n", r"b.csv has no column 'user' .*'item' .*'ts' .*found: account, product, moment"),
        ("User,Item,TS\nu1,i1,17\n", r"found: User, Item, TS, .*set dataset.columns.user='User', dataset.columns.item='Item'"),
        ("u1,i1,17,web\n", r"b.csv begins with u1, i1, 17, web, not with a header like a.csv .*no header has its 4 fields"),
        ("alice,film,\nbob,show,\n", r"b.csv has no column 'user'.*unlike a.csv"),
    ],
)  # fmt: skip
def test_a_file_that_lacks_a_column_is_named_with_one_that_has_it(tmp_path: Path, other: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        plan(tmp_path, {"a.csv": HEADER + ROWS, "b.csv": other})
    assert "\n" not in str(caught.value)


def test_a_piece_that_fits_several_headers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"c.csv begins with u1, i1, 17, .*several headers have its 3 fields"):
        plan(tmp_path, {"a.csv": HEADER + ROWS, "b.csv": "item,user,ts\ni1,u1,17\n", "c.csv": ROWS})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ROWS, r"no column 'user' \(dataset.columns.user\), no column 'item' .*; columns found: u1, i1, 17; set .*column_names=\[…\]"),
        ("visitor, item ,when\nu,i,17\n", r"columns found: visitor, ' item ', when; set dataset.columns.item=' item '"),
        ("user~item~ts\nu~i~17\n", r"fields are separated by something else: dataset.delimiter=…"),
        ("user,item,ts,item\nu,i,17,j\n", r"has two columns 'item' \(dataset.columns.item\).*rename one"),
    ],
)  # fmt: skip
def test_all_that_is_missing_is_said_at_once(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(tmp_path, {"a.csv": text})


def test_columns_without_a_header_are_named_by_position(tmp_path: Path) -> None:
    names = ("user", "item", "kind", "ts")
    files = {"a": "u1\ti1\tpv\t17\nu2\ti2\tbuy\t18\n", "b": "u3\ti3\tpv\t19\n"}
    assert shapes(plan(tmp_path, files, column_names=names)) == [(["a", "b"], names, False)]


@pytest.mark.parametrize(
    ("text", "names", "message"),
    [
        ("u1,i1,pv,17\n", ("user", "item", "ts"), r"has 4 columns \(u1, i1, pv, 17\), but dataset.column_names names 3: name all"),
        ("u1,i1\n", ("user", "item", "ts"), "has 2 columns"),
        ("u1,i1,17\n", ("user", "item", "when"), r"dataset.column_names has no column 'ts' \(dataset.columns.time\)"),
        (HEADER + ROWS, ("user", "item", "ts"), r"begins with a header \(user, item, ts\): leave out dataset.column_names"),
        ("who,what,moment\n" + ROWS, ("user", "item", "ts"), r"begins with a header \(who, what, moment\)"),
    ],
)  # fmt: skip
def test_names_that_do_not_fit_the_file_are_refused(
    tmp_path: Path, text: str, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan(tmp_path, {"a.csv": text}, column_names=names)


def test_a_first_row_with_a_hole_is_no_header(tmp_path: Path) -> None:
    parts = plan(tmp_path, {"a.csv": "u1,i1,\nu2,i2,18\n"}, column_names=("user", "item", "ts"))
    assert shapes(parts) == [(["a.csv"], ("user", "item", "ts"), False)]


def test_names_that_spark_takes_for_one_are_told_apart() -> None:
    names = ["user", "User", "", "item", "__file", "a", "A", "a", "_corrupt_record"]
    safe = safe_names(names, ["user", "item"])
    assert (safe[0], safe[3]) == ("user", "item")
    assert len({name.casefold() for name in (*safe, "_corrupt_record")}) == len(names) + 1
    assert not any(name.startswith("__") for name in safe)
