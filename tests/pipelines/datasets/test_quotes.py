"""A quoted field over several lines is one field; a quote that is never closed eats nothing."""

import csv
import io
import random
import re

import pytest

from pipelines.datasets.quotes import count_spans
from pipelines.datasets.text import QuoteState, open_quote, records, split_fields


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["u,i,c", "a,b,c"], (0, 0)),
        (['a,b,"liked it', 'very much"', "c,d,e"], (1, 0)),
        (['a,b,"one', 'my friend,i999,5"', 'a,b,"x ""y"" ', '"'], (2, 0)),
        (['"a', 'b","c', 'd",e'], (1, 0)),
        (['a,5" disk,c', 'b,7" disk,c', 'a,"Heroes" by B,c', '"a,""",b,c'], (0, 0)),
        (['a,"5 inch,c', "b,i2,c", 'd,"7 inch,c', "e,i3,c"], (0, 1)),
        (['a,"5 inch,c', "b,i2,c"], (0, 1)),
        (['a,"5 inch,c', "b,i2,c", 'a,b,"fine"'], (0, 1)),
        (['a,b,"liked', 'it"', 'a,"5 inch,c', "b,i2,c"], (1, 3)),
        (['a,"too', 'few"'], (0, 1)),
    ],
)
def test_what_a_quote_that_stays_open_means(lines: list[str], expected: tuple[int, int]) -> None:
    assert count_spans([line + "\n" for line in lines], ",", 3) == expected


def test_no_field_spans_more_lines_than_are_allowed() -> None:
    lines = ['a,b,"', *["x"] * 1001, '"']
    assert count_spans(lines, ",", 3) == (0, 1)
    assert count_spans([*lines[:900], '"'], ",", 3) == (1, 0)


def test_records_and_fields_are_those_of_the_csv_module() -> None:
    rng = random.Random(0)
    pieces = ["a", '"', ",", "\n", " ", "1"]
    for _ in range(300):
        rows = [["".join(rng.choices(pieces, k=rng.randint(0, 5))) for _ in range(3)] for _ in range(4)]
        text = io.StringIO()
        csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
        assert [split_fields(record, ",") for record in records(text.getvalue(), ",")] == rows


def test_the_cheap_look_misses_no_line_that_stays_open() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        line = "".join(rng.choices(["a", '"', ",", '""'], k=rng.randint(1, 8)))
        state = QuoteState(",")
        state.read(line)
        assert not state.is_open or re.search(open_quote(","), line), line
