"""Draws the README's picture from a run: ``python -m benchmarks.picture W/report/summary.json docs/movielens_1m.svg``."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.report.accuracy_figures import candidate_curves
from pipelines.report.methods import Styles
from pipelines.report.summary import read_summary
from pipelines.report.tables import views


def main() -> None:
    """Write the candidate curves of the run's first view as one SVG file."""
    source, target = sys.argv[1:3]
    summary = read_summary(Path(source).read_text())
    view = views(summary)[0]
    figure = candidate_curves(summary, view, Styles(row.method for row in summary.curves))
    if figure is None:
        raise SystemExit(f"{source} has no curves to draw")
    svg = str(figure)
    svg = svg[svg.index("<svg") : svg.rindex("</svg>") + len("</svg>")]
    if "xmlns=" not in svg.split(">", 1)[0]:
        svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    Path(target).write_text(svg + "\n")


if __name__ == "__main__":
    main()
