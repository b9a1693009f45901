"""``dr compare`` and ``dr sweep``: what a run is worth beside others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from dr_core.errors import ConfigError
from pipelines.cli.answer import Answer
from pipelines.cli.options import (
    CatalogueOption,
    ConfigOption,
    EndOption,
    FreshOption,
    JsonOption,
    LogsOption,
    SeedsOption,
    SetOption,
    StartOption,
    WorkdirOption,
    configured,
    report_line,
    span,
    words,
)

SWEEP_COLUMNS = ("overlap", "candidate_recall", "precision", "recall", "multiply_adds", "largest_path", "lift", "nmi")


def compare(
    config: ConfigOption,
    workdir: WorkdirOption = None,
    logs: LogsOption = None,
    catalogue: CatalogueOption = None,
    overrides: SetOption = None,
    start: StartOption = None,
    end: EndOption = None,
    methods: Annotated[
        str, typer.Option("--methods", metavar="A,B", help="Baselines to measure, separated by commas (default: all).")
    ] = "",
    seeds: SeedsOption = 1,
    fresh: FreshOption = False,
    as_json: JsonOption = False,
) -> Answer:
    """Baselines and controls beside Deep Retrieval: the same users, the same costs."""
    _require_baselines()
    from pipelines.experiments.compare import compare as compare_all
    from pipelines.report.console import trim_console_table

    chosen, folder = configured(config, overrides, workdir)
    summary = compare_all(
        chosen,
        folder,
        logs=logs,
        catalogue=catalogue,
        interval=span(start, end, chosen.dataset.time_zone),
        methods=words(methods),
        num_seeds=seeds,
        fresh=fresh,
    )
    return Answer(summary, f"\n{trim_console_table(summary)}\n\n{report_line(folder)}")


def sweep(
    config: ConfigOption,
    workdir: WorkdirOption = None,
    logs: LogsOption = None,
    catalogue: CatalogueOption = None,
    overrides: SetOption = None,
    start: StartOption = None,
    end: EndOption = None,
    studies: Annotated[
        str, typer.Option("--studies", metavar="A,B", help="Studies, separated by commas (default: all).")
    ] = "",
    seeds: SeedsOption = 1,
    as_json: JsonOption = False,
) -> Answer:
    """How much K, D, J, B, S, alpha, the rounds and the start matter."""
    _require_baselines()
    from pipelines.experiments.sweep import sweep as sweep_all

    chosen, folder = configured(config, overrides, workdir)
    rows = sweep_all(
        chosen,
        folder,
        logs=logs,
        catalogue=catalogue,
        interval=span(start, end, chosen.dataset.time_zone),
        studies=words(studies),
        num_seeds=seeds,
    )
    return Answer(rows, "\n".join([*sweep_table(rows), report_line(folder)]))


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sweep's points as the lines of a table.

    A column is shown if any point has its figure; a point without one has a dash there.
    """
    shown = [name for name in SWEEP_COLUMNS if any(row.get(name) is not None for row in rows)]
    lines = [f"{'study':17} {'value':>14} " + " ".join(f"{name:>16}" for name in shown)]
    for row in rows:
        cells = " ".join(f"{'–' if row.get(name) is None else format(row[name], '.4g'):>16}" for name in shown)
        lines.append(f"{row['study']:17} {row['value']:>14} {cells}")
    return lines


def _require_baselines() -> None:
    missing = [name for name in ("faiss", "implicit", "threadpoolctl") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} not installed: baselines need the extra, pip install 'deep-retrieval[baselines]'"
        )
