"""Matplotlib figures as inline SVG: one calm style, no pyplot state, no external reference, reproducible bytes."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from pipelines.evaluation.methods import Method, Style
from pipelines.report import formats

INK, MUTED, RULE = "#1D2733", "#5B6875", "#E3E8EE"
PAGE_WIDTH = 11.0
"""Inches; the page scales every figure to its own width."""

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": "#B9C2CC",
    "axes.linewidth": 0.8,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "xtick.color": "#B9C2CC",
    "ytick.color": "#B9C2CC",
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.markersize": 4.5,
    "lines.markeredgewidth": 1.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def inline_svg(draw: Callable[[], Figure], description: str) -> Markup:
    """Return what ``draw`` draws as an ``<svg>`` element in the page's style, described for those who cannot see it."""
    with matplotlib.rc_context(_STYLE):
        text, figure = io.StringIO(), draw()
        _lay_out(figure)
        figure.savefig(text, format="svg")
    return Markup(_inlined(text.getvalue(), description))


def _lay_out(figure: Figure) -> None:
    """Let the layout engine place the panels once, for SVG: ``savefig`` would draw the figure a second time for that."""
    engine = figure.get_layout_engine()
    if engine is not None:
        FigureCanvasSVG(figure)
        engine.execute(figure)
        figure.set_layout_engine("none")


def _inlined(svg: str, description: str) -> str:
    """Return the bare element: no prolog, metadata, name spaces or fixed size; ids no other figure can have."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(?:xmlns(?::\w+)?|width|height|version)="[^"]*"', "", head)
    rest = rest.replace("xlink:href", "href")
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', rest))
    names = {name for pair in used for name in pair if name}
    rest = re.sub(r'\sid="([^"]+)"', lambda found: found.group(0) if found.group(1) in names else "", rest)
    prefix = "f" + hashlib.sha256((description + rest).encode()).hexdigest()[:8]
    for pattern in (r'(\sid=")([^"]+")', r'(href="#)([^"]+")', r"(url\(#)([^)]+\))"):
        rest = re.sub(pattern, rf"\g<1>{prefix}-\g<2>", rest)
    rest = re.sub(r' (d|x|y|points)="([^"]*)"', _rounded, rest)
    return f'{head} role="img" aria-label="{Markup.escape(description)}">{rest}'


def _rounded(attribute: re.Match[str]) -> str:
    return ' {}="{}"'.format(attribute.group(1), re.sub(r"(\.\d\d)\d+", r"\1", attribute.group(2)))


def grid(num_panels: int, num_columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of the page's width and its panels, ``height`` inches a row."""
    columns = min(num_panels, num_columns)
    rows = -(-num_panels // columns)
    width = PAGE_WIDTH * columns / num_columns
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    panels = [figure.add_subplot(rows, columns, place + 1) for place in range(num_panels)]
    return figure, panels


def draw_line(axes: Axes, style: Style, x: Sequence[float], y: Sequence[float]) -> None:
    """Draw one method's line in its own look."""
    axes.plot(
        x,
        y,
        color=style.color,
        marker=style.marker,
        linestyle=style.line,
        linewidth=style.width,
        markerfacecolor=style.color if style.width > 2 else "white",
        zorder=3 if style.width > 2 else 2,
    )


def legend(figure: Figure, methods: Sequence[Method], *, bare: Sequence[Method] = ()) -> None:
    """Put one legend below all panels; ``bare`` are lines without markers."""
    handles = [
        Line2D(
            [],
            [],
            color=method.style.color,
            marker="" if method in bare else method.style.marker,
            linestyle=method.style.line,
            linewidth=method.style.width,
            markerfacecolor=method.style.color if method.style.width > 2 else "white",
            label=method.label,
        )
        for method in methods
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=min(len(handles), 5), handlelength=3.4)


def cost_axis(axes: Axes, costs: Sequence[float], text: str, num_items: int | None = None) -> None:
    """Make x a logarithmic cost axis with round ticks, and below each the share of the items where it is known."""
    low, high = min(costs), max(costs)
    ticks = [step * 10.0**power for power in range(-1, 15) for step in (1, 2, 5)]
    inside = [tick for tick in ticks if low * 0.98 <= tick <= high * 1.02]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(inside or [low, high]))
    axes.xaxis.set_minor_locator(NullLocator())

    def shown(tick: float, _: int | None = None) -> str:
        cost = formats.magnitude(tick) if tick >= 1e4 else formats.count(tick)
        return f"{cost}\n{formats.percent(tick / num_items, 1)} %" if num_items else cost

    axes.xaxis.set_major_formatter(FuncFormatter(shown))
    axes.set_xlabel(text)


def percent_axis(axes: Axes) -> None:
    """Show fractions on y in percent."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
