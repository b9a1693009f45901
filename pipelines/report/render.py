"""``report/index.html``: one self-contained page from the summary and the report's data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from pipelines.evaluation import methods
from pipelines.report import accuracy_figures, checks, formats, learning_figures, sweep_figures, tables
from pipelines.report.data import ReportData, parse_data
from pipelines.report.styles import Styles
from pipelines.report.summary import Stage, Summary, parse_summary
from pipelines.report.tables import ResultRow, View

_TEMPLATE = "page.html.j2"
_STYLESHEET = "page.css"
_COLUMNS = (
    ("Accuracy", ("precision", "sd", "interval", "recall", "f1", "ndcg", "hit_rate")),
    ("Fidelity", ("overlap", "candidate_recall")),
    ("Cost a user", ("candidates", "share", "beam", "multiply_adds", "microseconds")),
)
_HEADS = {
    "precision": "P",
    "sd": "± sd",
    "interval": "95 % interval",
    "recall": "R",
    "f1": "F1",
    "ndcg": "NDCG",
    "hit_rate": "hit",
    "overlap": "overlap",
    "candidate_recall": "cand. recall",
    "candidates": "candidates",
    "share": "% of items",
    "beam": "beam",
    "multiply_adds": "mult.-adds",
    "microseconds": "µs",
}


@dataclass(frozen=True)
class ViewPart:
    """Everything the page shows of one (filtered, k)."""

    view: View
    rows: list[ResultRow]
    groups: list[tuple[str, list[str]]]
    overview: Markup | None
    curves: Markup | None
    adds: Markup | None
    times: Markup | None
    forest: Markup | None


@dataclass(frozen=True)
class StageBar:
    """One stage's line: its repetitions together."""

    name: str
    runs: int
    seconds: float
    share: float
    rows_in: int | None
    rows_out: int | None


def render_report(summary: Summary | Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Return the page as HTML: inline CSS and SVG, no script, nothing fetched.

    A section whose figures are missing is left out.

    Args:
        summary: the content of ``summary.json``.
        data: the content of ``report_data.json``; every key may be missing.

    Raises:
        InputError: one of the two is malformed.
    """
    checked, extra = parse_summary(summary), parse_data(data)
    environment = Environment(
        loader=DictLoader({_TEMPLATE: files(__package__).joinpath(_TEMPLATE).read_text("utf-8")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(formats, name)
        for name in ("percent", "count", "plain", "duration", "magnitude", "path", "unbroken")
    }
    return environment.get_template(_TEMPLATE).render(**_content(checked, extra)).strip() + "\n"


def _content(summary: Summary, data: ReportData) -> dict[str, Any]:
    named = [row.method for row in summary.results] + [row.method for row in summary.curves]
    named += [row.method for row in data.by_activity] + [row.method for row in data.by_popularity]
    styles = Styles(named)
    visits = data.example_user.paths if data.example_user else ()
    shown = tables.views(summary) or list(dict.fromkeys(View(row.filtered, row.k) for row in summary.curves))
    return {
        "css": Markup(files(__package__).joinpath(_STYLESHEET).read_text("utf-8")),
        "summary": summary,
        "data": data,
        "counts": _counts(summary),
        "chosen": _chosen(summary),
        "checks": checks.checks(summary),
        "parts": [
            _view_part(summary, view, styles, is_main=view == shown[0], by_accuracy=bool(data.baselines))
            for view in shown
        ],
        "heads": _HEADS,
        "subject": tables.subject(summary),
        "brute_force": methods.BRUTE_FORCE,
        "differences": list(tables.difference_rows(summary)),
        "minuends": [methods.label(name) for name in methods.ordered(row.method for row in summary.differences)],
        "path_sizes": learning_figures.path_size_figure(data.path_sizes),
        "rounds": learning_figures.rounds_figure(summary.rounds),
        "training": learning_figures.training_figure(data.training),
        "speed": _speed(data),
        "breadth": _breadth(data),
        "baselines": _baselines(data),
        "sweep": sweep_figures.sweep_figure(data.sweep),
        "sweep_rows": _sweep_rows(data),
        "activity": accuracy_figures.activity_figure(data.by_activity, styles),
        "popularity": accuracy_figures.popularity_figure(data.by_popularity, styles),
        "most_probable": max((visited.probability or 0 for visited in visits), default=0),
        "health": _health(summary),
        "stages": _stage_bars(summary.stages),
        "glossary": [
            (methods.label(name), name, methods.explanation(name))
            for name in methods.ordered(named)
            if methods.explanation(name)
        ],
    }


def _view_part(summary: Summary, view: View, styles: Styles, *, is_main: bool, by_accuracy: bool) -> ViewPart:
    rows = tables.result_rows(summary, view, by_accuracy=by_accuracy)
    used = tables.columns_in_use(rows)
    groups = [(title, [name for name in names if name in used]) for title, names in _COLUMNS]
    return ViewPart(
        view=view,
        rows=rows,
        groups=[(title, names) for title, names in groups if names],
        overview=accuracy_figures.results_overview(summary, view, styles) if is_main else None,
        curves=accuracy_figures.candidate_curves(summary, view, styles),
        adds=accuracy_figures.cost_curves(summary, view, styles, "multiply_adds", ("overlap", "candidate_recall")),
        times=accuracy_figures.cost_curves(summary, view, styles, "microseconds", ("precision", "recall")),
        forest=accuracy_figures.difference_forest(summary, view),
    )


def _counts(summary: Summary) -> list[tuple[str, str]]:
    names = {
        "users": "users",
        "items": "items",
        "events": "events",
        "train_users": "training users",
        "test_users": "test users",
        "quarantined": "rows quarantined",
        "filtered": "rows filtered out",
    }
    values = [(text, getattr(summary.data, name)) for name, text in names.items()]
    return [(text, formats.count(value)) for text, value in values if value is not None]


def _chosen(summary: Summary) -> list[tuple[str, str, str]]:
    meanings = {
        "K": "nodes a layer",
        "D": "layers",
        "J": "paths an item",
        "S": "candidate paths an item",
        "alpha": "size penalty",
        "beam": "paths a user",
        "price": "ln of the probability of an item from which on a path is visited",
        "opening": "ln of the probability from which on a prefix is opened",
        "most": "candidates of one user at most",
    }
    symbols = {
        "alpha": "\N{GREEK SMALL LETTER ALPHA}",
        "beam": "B",
        "price": "\N{GREEK SMALL LETTER LAMDA}",
        "opening": "\N{GREEK SMALL LETTER THETA}",
    }
    found = [
        (symbols.get(name, name), formats.plain(getattr(summary.structure, name)), text)
        for name, text in meanings.items()
        if getattr(summary.structure, name) is not None
    ]
    for name, shown in (
        ("m_step", "M-step"),
        ("normaliser", "normaliser"),
        ("path_vectors", "last layer"),
        ("search", "search by"),
    ):
        kind, _, reason = (getattr(summary.structure, name) or "").partition(": ")
        found += [(shown, kind, reason)] if kind else []
    structure = summary.structure
    if structure.nodes is not None and not structure.is_even:
        found[0] = ("K", formats.layers(structure.nodes), "nodes of each layer")
    if structure.num_paths is not None:
        found.insert(2, ("Kᴰ" if structure.is_even else "paths", formats.count(structure.num_paths), "possible paths"))
    return found


def _speed(data: ReportData) -> list[tuple[str, float]]:
    """Return (phase, mean rows a second) in the order of training."""
    speeds: dict[str, list[float]] = defaultdict(list)
    for row in data.training:
        if row.rows_per_second is not None:
            speeds[row.phase].append(row.rows_per_second)
    return [(phase, sum(measured) / len(measured)) for phase, measured in speeds.items()]


def _health(summary: Summary) -> list[tuple[str, str, str]]:
    health, num_items = summary.health, summary.data.items
    of_all = ""
    if health.largest_path is not None and num_items:
        of_all = f"{formats.percent(health.largest_path / num_items)} % of all items"
    figures = [
        ("occupied paths", health.occupied_paths, formats.count, "paths with at least one item"),
        ("largest path", health.largest_path, formats.count, of_all or "items on it"),
        ("mean path", health.mean_path, formats.count, "items on an occupied path"),
        ("gini", health.gini, formats.plain, "0: all paths alike, 1: one has all"),
        ("normalised entropy", health.normalized_entropy, formats.plain, "1: all paths alike"),
        ("items without a path", health.items_without_path, formats.count, "cannot be found"),
    ]
    return [(name, shown(value), text) for name, value, shown, text in figures if value is not None]


def _breadth(data: ReportData) -> list[tuple[str, list[str]]]:
    """Return (method, cells) of how far each method's lists reach."""
    rows = {row.method: row for row in data.breadth}
    return [
        (
            methods.label(name),
            [
                formats.percent(rows[name].coverage, 1),
                formats.percent(rows[name].creators, 1),
                formats.percent(rows[name].tail_share, 1),
                formats.plain(rows[name].novelty),
            ],
        )
        for name in methods.ordered(rows)
    ]


def _sweep_rows(data: ReportData) -> list[tuple[str, list[str]]]:
    """Return (study, cells) of every point, as text."""
    return [
        (
            sweep_figures.STUDIES.get(row.study, row.study),
            [
                row.value,
                *(
                    formats.percent(value)
                    for value in (row.overlap, row.candidate_recall, row.precision, row.brute_force_precision)
                ),
                *(formats.count(value) for value in (row.beam, row.occupied_paths, row.largest_path)),
                formats.magnitude(row.multiply_adds),
                *(formats.plain(value) for value in (row.lift, row.nmi)),
                formats.duration(row.seconds),
            ],
        )
        for row in data.sweep
    ]


def _baselines(data: ReportData) -> list[tuple[str, str, str, str, str]]:
    """Return (method, chosen settings, settings tried, seconds to fit, MB) of every baseline."""
    return [
        (
            methods.label(row.method),
            ", ".join(f"{name} {formats.setting(value)}" for name, value in row.settings.items()) or "as they come",
            formats.count(len(row.trials) or 1),
            formats.duration(sum(trial.seconds or 0 for trial in row.trials) or row.seconds),
            formats.plain(row.megabytes),
        )
        for row in data.baselines
    ]


def _stage_bars(stages: tuple[Stage, ...]) -> list[StageBar]:
    """Return one bar a stage name, in the order of the first run: seconds summed, rows of the last run."""
    runs: dict[str, list[Stage]] = defaultdict(list)
    for stage in stages:
        if stage.seconds is not None:
            runs[stage.name].append(stage)
    seconds = {name: float(sum(stage.seconds or 0 for stage in same)) for name, same in runs.items()}
    longest = max(seconds.values(), default=0.0) or 1.0
    return [
        StageBar(name, len(same), seconds[name], seconds[name] / longest, same[-1].rows_in, same[-1].rows_out)
        for name, same in runs.items()
    ]
