"""Figures of learning: path sizes after each M-step, the EM rounds, the training curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipelines.evaluation.methods import BLUE, GREY, ORANGE, VERMILLION
from pipelines.report import formats
from pipelines.report.data import PathSizes, TrainingRow
from pipelines.report.drawing import INK, MUTED, PAGE_WIDTH, cost_axis, grid, inline_svg
from pipelines.report.summary import Round

_UNIT_BINS = 60
"""Up to this largest size every size has its own bar; above it sizes are binned logarithmically."""


def path_size_figure(path_sizes: Sequence[PathSizes]) -> Markup | None:
    """Draw how many paths have how many items, one strip a moment of the run."""
    strips = [sizes for sizes in path_sizes if any(size > 0 and number > 0 for size, number in sizes.histogram)]
    return inline_svg(lambda: _draw_path_sizes(strips), "Path sizes before and after each M-step") if strips else None


def _draw_path_sizes(strips: list[PathSizes]) -> Figure:
    histograms = [np.array([pair for pair in strip.histogram if pair[0] > 0 and pair[1] > 0]) for strip in strips]
    largest = int(max(histogram[:, 0].max() for histogram in histograms))
    fine = largest <= _UNIT_BINS
    edges = np.arange(0.5, largest + 1.5) if fine else np.unique(np.geomspace(1, largest + 1, 48).astype(int)) - 0.5
    figure = Figure(figsize=(PAGE_WIDTH, 0.5 + 0.78 * len(strips)), layout="constrained")
    axes = figure.subplots(len(strips), 1, sharex=True, squeeze=False)[:, 0]
    for number, (panel, strip, histogram) in enumerate(zip(axes, strips, histograms, strict=True)):
        sizes, counts = histogram[:, 0], histogram[:, 1]
        heights, _ = np.histogram(sizes, bins=edges, weights=counts)
        color = GREY if number == 0 else BLUE
        panel.bar(edges[:-1], heights, width=np.diff(edges) * 0.92, align="edge", color=color, linewidth=0)
        mean = float((sizes * counts).sum() / counts.sum())
        panel.axvline(mean, color=INK, lw=0.9)
        panel.plot([sizes.max()], [0], "v", color=VERMILLION, ms=5, clip_on=False, zorder=4)
        panel.set_ylabel(strip.label, rotation=0, ha="right", va="center", labelpad=30, color=INK)
        text = f"{formats.count(int(counts.sum()))} paths, mean {mean:.1f}, largest {formats.count(int(sizes.max()))}"
        panel.text(0.995, 0.9, text, transform=panel.transAxes, ha="right", va="top", color=MUTED)
        panel.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        panel.margins(y=0.12)
    if not fine:
        cost_axis(axes[-1], [1.0, float(largest)], "")
    axes[-1].set_xlabel("items on the path (line: mean, triangle: largest); height: number of paths")
    return figure


def rounds_figure(rounds: Sequence[Round]) -> Markup | None:
    """Draw losses, likelihood, surrogate, moves and occupation over the rounds; a panel for each figure there is."""
    panels: list[tuple[str, Callable[[Axes], None]]] = []

    def has(*names: str) -> bool:
        return any(all(getattr(row, name) is not None for name in names) for row in rounds)

    for name, title in (("loss_softmax", "Loss, softmax"), ("loss_structure", "Loss, structure")):
        if has(name):
            panels.append((title, _line(rounds, name)))
    if has("likelihood_before", "likelihood_after"):
        panels.append(("True log-likelihood", _before_after(rounds, "likelihood", "after", connected=True)))
    if has("surrogate_before", "surrogate_after_descent"):
        panels.append(("Surrogate, descent", _before_after(rounds, "surrogate", "after_descent", connected=False)))
    for name, title in (
        ("items_moved", "Items moved"),
        ("occupied_paths", "Occupied paths"),
        ("largest_path", "Largest path, items"),
    ):
        if has(name):
            panels.append((title, _bars(rounds, name)))
    if has("validation_recall"):
        panels.append(("Validation recall", _line(rounds, "validation_recall", percent=True)))
    return inline_svg(lambda: _draw_rounds(rounds, panels), "Figures of every EM round") if panels else None


def _draw_rounds(rounds: Sequence[Round], panels: list[tuple[str, Callable[[Axes], None]]]) -> Figure:
    figure, axes = grid(len(panels), 4, 2.1)
    for panel, (title, draw) in zip(axes, panels, strict=True):
        draw(panel)
        panel.set_title(title)
        panel.set_xticks([row.round for row in rounds])
        panel.set_xlim(min(row.round for row in rounds) - 0.5, max(row.round for row in rounds) + 0.7)
    for panel in axes[-min(4, len(axes)) :]:
        panel.set_xlabel("round")
    return figure


def _line(rounds: Sequence[Round], name: str, *, percent: bool = False) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        known = [(row.round, getattr(row, name)) for row in rounds if getattr(row, name) is not None]
        axes.plot(*zip(*known, strict=True), "-o", color=BLUE, lw=1.6)
        axes.margins(y=0.2)
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))

    return draw


def _bars(rounds: Sequence[Round], name: str) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        known = [(row.round, getattr(row, name)) for row in rounds if getattr(row, name) is not None]
        bars = axes.bar([number for number, _ in known], [value for _, value in known], color=BLUE, width=0.55)
        axes.bar_label(bars, [formats.count(value) for _, value in known], padding=2, color=MUTED, fontsize=7.5)
        axes.margins(y=0.18)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formats.count(value)))

    return draw


def _before_after(rounds: Sequence[Round], stem: str, then: str, *, connected: bool) -> Callable[[Axes], None]:
    """Draw the M-step of every round as an arrow from before to after; dotted, the E-step in between."""

    def draw(axes: Axes) -> None:
        steps = [
            (row.round, getattr(row, f"{stem}_before"), getattr(row, f"{stem}_{then}"))
            for row in rounds
            if getattr(row, f"{stem}_before") is not None and getattr(row, f"{stem}_{then}") is not None
        ]
        last: tuple[float, float] | None = None
        for number, before, after in steps:
            if connected and last is not None:
                axes.plot([last[0], number], [last[1], before], color=GREY, ls=(0, (1, 1.5)), lw=1.1)
            axes.plot([number, number + 0.35], [before, after], color=ORANGE if after < before else BLUE, lw=2)
            axes.plot([number], [before], "o", mfc="white", color=BLUE, ms=5)
            axes.plot([number + 0.35], [after], "o", color=BLUE, ms=5)
            last = (number + 0.35, after)
        axes.margins(y=0.2)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: formats.magnitude(value)))

    return draw


def training_figure(rows: Sequence[TrainingRow]) -> Markup | None:
    """Draw the loss of every epoch, phase by phase."""
    panels = [
        (name, title)
        for name, title in (("loss_softmax", "Softmax loss, nats"), ("loss_structure", "Structure loss, nats a path"))
        if any(getattr(row, name) is not None for row in rows)
    ]
    return inline_svg(lambda: _draw_training(rows, panels), "Training losses by epoch") if panels else None


def _draw_training(rows: Sequence[TrainingRow], panels: list[tuple[str, str]]) -> Figure:
    figure, axes = grid(len(panels), len(panels), 2.7)
    starts = [number for number, row in enumerate(rows) if number == 0 or row.phase != rows[number - 1].phase]
    for panel, (name, title) in zip(axes, panels, strict=True):
        for start, end in zip(starts, [*starts[1:], len(rows)], strict=True):
            known = [
                (number + 1, getattr(rows[number], name))
                for number in range(start, end)
                if getattr(rows[number], name) is not None
            ]
            if known:
                panel.plot(*zip(*known, strict=True), "-o", color=BLUE, lw=1.6, ms=4)
            if start:
                panel.axvline(start + 0.5, color="#C9D1DA", lw=0.8)
            panel.text(
                (start + end + 1) / 2, 1.0, rows[start].phase, transform=panel.get_xaxis_transform(), ha="center",
                va="bottom", color=MUTED, fontsize=7.5,
            )  # fmt: skip
        panel.set_xlim(0.5, len(rows) + 0.5)
        panel.set_title(title, pad=18)
        panel.set_xlabel("epoch, all phases in a row")
        panel.xaxis.set_major_locator(MaxNLocator(min(12, len(rows)), integer=True))
        panel.margins(y=0.12)
    return figure
