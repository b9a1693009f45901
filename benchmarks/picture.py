"""Draws a figure of a run's report on its own: ``python -m benchmarks.picture W docs/movielens_1m.svg --figure candidates``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup
from pipelines.report.methods import Styles

from pipelines.report.accuracy_figures import candidate_curves, cost_curves
from pipelines.report.data import parse_data
from pipelines.report.summary import read_summary
from pipelines.report.sweep_figures import sweep_figure
from pipelines.report.tables import views

FIGURES = ("candidates", "time", "sweep")


def draw(report: Path, figure: str, chosen: Sequence[str]) -> Markup | None:
    """Return a figure of the run's first view with some of the methods, or None when the run measured nothing for it."""
    if figure == "sweep":
        return sweep_figure(parse_data(json.loads((report / "report_data.json").read_text())).sweep)
    summary = read_summary((report / "summary.json").read_text())
    styles, view = Styles(row.method for row in summary.curves), views(summary)[0]
    if chosen:
        curves = tuple(row for row in summary.curves if row.method in chosen)
        summary = summary.model_copy(update={"curves": curves})
    if figure == "candidates":
        return candidate_curves(summary, view, styles)
    return cost_curves(summary, view, styles, "microseconds", ("precision", "recall"))


def main() -> None:
    """Write one figure as an SVG file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.picture", description=__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--figure", choices=FIGURES, default=FIGURES[0])
    parser.add_argument("--methods", default="", help="only these, separated by commas")
    arguments = parser.parse_args()
    drawn = draw(
        arguments.workdir / "report", arguments.figure, [name for name in arguments.methods.split(",") if name]
    )
    if drawn is None:
        raise SystemExit(f"{arguments.workdir} has nothing to draw {arguments.figure} from")
    svg = str(drawn)
    svg = svg[svg.index("<svg") : svg.rindex("</svg>") + len("</svg>")]
    if "xmlns=" not in svg.split(">", 1)[0]:
        svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    arguments.target.write_text(svg + "\n")


if __name__ == "__main__":
    main()
