"""Figures of the sensitivity studies: what changes when one knob is turned."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from pipelines.evaluation import methods
from pipelines.report.data import SweepRow
from pipelines.report.drawing import grid, inline_svg, percent_axis
from pipelines.report.tables import FRACTIONS

STUDIES = {
    "beam": "beam B",
    "nodes": "nodes K",
    "layers": "layers D",
    "paths_per_item": "paths an item J",
    "alpha": "alpha x the run's (descent alone)",
    "candidate_paths": "candidate paths S (descent alone)",
    "rounds": "rounds of EM from clusters",
    "random_start": "rounds of EM from random paths",
    "mean_path": "items a visited path, x the run's",
    "assignment": "what the M-step is, from clusters",
    "assignment_random": "what the M-step is, from random paths",
    "encoder": "encoder of the history",
    "coherence": "paths: do their items share users and categories",
    "two_tower": "two-tower: softmax @ temperature",
}
"""Studies and what their values are."""
_LINES = {
    "overlap": (methods.BLUE, "o", "-"),
    "candidate_recall": (methods.VERMILLION, "s", "--"),
    "precision": (methods.GREEN, "^", ":"),
    "recall": (methods.ORANGE, "D", "-."),
}


def sweep_figure(rows: Sequence[SweepRow]) -> Markup | None:
    """Draw accuracy against the values of each study, one panel a study."""
    shown = [row for row in rows if any(getattr(row, metric) is not None for metric in _LINES)]
    studies = [study for study in STUDIES if any(row.study == study for row in shown)]
    if not studies:
        return None

    def draw() -> Figure:
        figure, axes = grid(len(studies), 3, 2.7)
        for panel, study in zip(axes, studies, strict=True):
            points = [row for row in shown if row.study == study]
            for metric, (color, marker, line) in _LINES.items():
                drawn = [
                    (at, getattr(row, metric)) for at, row in enumerate(points) if getattr(row, metric) is not None
                ]
                if drawn:
                    panel.plot(*zip(*drawn, strict=True), color=color, marker=marker, linestyle=line,
                               label=FRACTIONS[metric])  # fmt: skip
            panel.set_xticks(range(len(points)), [row.value for row in points])
            if study.startswith(("two_tower", "assignment")):
                panel.tick_params(axis="x", labelrotation=60)
            panel.set_title(STUDIES[study])
            panel.set_ylim(bottom=0)
            percent_axis(panel)
        known: dict[str, Artist] = {}
        for panel in axes:
            handles, labels = panel.get_legend_handles_labels()
            known |= dict(zip(labels, handles, strict=True))
        figure.legend(list(known.values()), list(known), loc="outside lower left", ncols=4)
        return figure

    return inline_svg(draw, "Accuracy against the values of every study")
