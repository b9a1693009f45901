"""What machines read of a command is JSON, whatever figures there are."""

import json
import math
from typing import Any

import pytest

from pipelines.cli.answer import Answer


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("wrap", "inside"),
    [
        (lambda value: value, lambda document: document),
        (lambda value: {"a": value}, lambda document: document["a"]),
        (lambda value: [1.5, (value,)], lambda document: document[1][0]),
        (lambda value: [{"rows": [{"beam": value}]}], lambda document: document[0]["rows"][0]["beam"]),
    ],
)
def test_a_figure_that_is_no_number_is_null(value: float, wrap: Any, inside: Any) -> None:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    assert inside(json.loads(Answer(wrap(value)).as_json(), parse_constant=refuse)) is None


def test_everything_else_stays_as_it_is() -> None:
    document = {"a": [1, 2.5, None, True, "é"], "b": {"c": []}}
    assert json.loads(Answer(document).as_json()) == document
    assert "é" in Answer(document).as_json()
