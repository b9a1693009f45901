"""One look for a method in every figure of a page, also for methods that are not registered."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.evaluation.methods import (
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Method,
    Style,
    find,
    label,
    ordered,
)

_COLORS = (SKY, GREEN, ORANGE, VERMILLION, PURPLE, GREY)
_MARKERS = ("8", "1", "2", "3", "4", "+", "|")
_LINES = ((0, (3, 1)), (0, (1, 1.5)), (0, (7, 1, 1, 1)))


class Styles:
    """The methods of one page, each with a look of its own."""

    def __init__(self, names: Iterable[str]) -> None:
        self._methods: dict[str, Method] = {}
        unregistered = 0
        for name in ordered(names):
            method = find(name)
            if method is None:
                number, unregistered = unregistered, unregistered + 1
                style = Style(
                    _COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)], _LINES[number % len(_LINES)]
                )
                method = Method(name, label(name), "baseline", style)
            self._methods[name] = method

    def __getitem__(self, name: str) -> Method:
        return self._methods[name]
