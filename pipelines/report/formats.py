"""Figures as people read them: percent with two decimals, counts with thousands, a dash for what does not apply."""

from __future__ import annotations

import re

MISSING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"

Figure = int | float | None


def percent(value: Figure, decimals: int = 2) -> str:
    """0.20581 -> ``20.58`` (the sign stands in the column's head)."""
    return MISSING if value is None else f"{100 * value:.{decimals}f}"


def points(value: Figure) -> str:
    """A signed difference of two fractions in percentage points: 0.0131 -> ``+1.31``."""
    return MISSING if value is None else f"{100 * value:+.2f}".replace("-", _MINUS)


def count(value: Figure) -> str:
    """129797 -> ``129,797``; 80.26 -> ``80.3``; 4.96 -> ``4.96``: means keep three digits."""
    if value is None:
        return MISSING
    if isinstance(value, int) or abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def magnitude(value: Figure) -> str:
    """A figure in three digits, large ones with their unit: 1240000 -> ``1.24 M``."""
    if value is None:
        return MISSING
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}".replace("-", _MINUS)
    return f"{value:.3g}".replace("-", _MINUS)


def plain(value: Figure) -> str:
    """A figure of any size in four digits: losses, likelihoods, alpha."""
    return MISSING if value is None else f"{value:.4g}".replace("-", _MINUS)


def setting(value: Figure | str) -> str:
    """A setting of a baseline: words as they are, yes or no, a figure in four digits."""
    if isinstance(value, str):
        return value
    return ("yes" if value else "no") if isinstance(value, bool) else plain(value)


def layers(nodes: tuple[int, ...]) -> str:
    """(512, 32) -> ``512 x 32``."""
    return " x ".join(map(str, nodes))


def interval(ends: tuple[int | float, int | float] | None) -> str:
    """(0.19, 0.21) -> ``19.00 \N{EN DASH} 21.00``."""
    return MISSING if ends is None else f"{percent(ends[0])} {MISSING} {percent(ends[1])}"


def duration(seconds: Figure) -> str:
    """0.42 -> ``0.4 s``; 75 -> ``1 min 15 s``; 7300 -> ``2 h 2 min``."""
    if seconds is None:
        return MISSING
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest} s"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest} min"


def unbroken(text: str) -> str:
    """Keep a figure and its unit on one line."""
    return re.sub(r"(?<=\d) (?=%|µs|[kMGT]\b)", "\N{NO-BREAK SPACE}", text)


def path(nodes: tuple[int, ...] | str) -> str:
    """(3, 17) -> ``3 → 17``."""
    return nodes if isinstance(nodes, str) else " → ".join(map(str, nodes))
