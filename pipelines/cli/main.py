"""The ``dr`` command. Results go to stdout (with ``--json`` exactly one JSON document), everything else to stderr."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dr_core.errors import ConfigError
from pipelines.cli.console import explain, results_only, start_logging

logger = logging.getLogger(__name__)

EPILOG = """exit codes: 0 done, 1 bug, 2 bad configuration or arguments, 3 refused by a data or quality gate, 75 try again

examples:
  dr doctor
  dr run --config conf/demo.yaml --workdir var/demo/demo
  dr run --config conf/movielens_1m.yaml --logs ratings.parquet --workdir W --seeds 3 --set paths.paths_per_item=2
  dr refresh --config conf/gowalla.yaml --workdir W --start 2024-05-02 --end 2024-05-03 --logs day.parquet
  dr compare --config conf/movielens_1m.yaml --logs ratings.parquet --workdir W --methods item_cf,two_tower_hnsw
  dr retrieve --workdir W --history 1,2,3 -k 10 --explain
  dr releases rollback --workdir W
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of ``dr`` and all its commands."""
    parser = argparse.ArgumentParser(
        prog="dr",
        description="Deep Retrieval: learn a structure in which items can be found, and find them by beam search.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = _command(commands, "run", "day one: everything, from logs to a live release and a report", run_command)
    _configured(run)
    run.add_argument(
        "--seeds", type=_positive, default=1, metavar="N", help="repeat with N seeds; the first one's release goes live"
    )
    run.add_argument("--fresh", action="store_true", help="delete what the work folder holds and start anew")
    _interval(run, required=False)

    refresh = _command(
        commands, "refresh", "each day after: ingest [T0, T1), learn what is new, judge it, publish it", refresh_command
    )
    _configured(refresh)
    _interval(refresh, required=True)

    compare = _command(
        commands, "compare", "rivals and controls beside Deep Retrieval: same users, same costs", compare_command
    )
    _configured(compare)
    compare.add_argument(
        "--methods", default="", metavar="A,B", help="rivals to measure, separated by commas (default: all of them)"
    )
    compare.add_argument(
        "--seeds", type=_positive, default=1, metavar="N", help="repeat with N seeds, each its own split"
    )
    compare.add_argument("--fresh", action="store_true", help="delete what the work folder holds and start anew")

    sweep = _command(commands, "sweep", "how much K, D, J, B, S, alpha, the rounds and the start matter", sweep_command)
    _configured(sweep)
    sweep.add_argument(
        "--studies", default="", metavar="A,B", help="studies, separated by commas (default: all of them)"
    )
    sweep.add_argument("--seeds", type=_positive, default=1, metavar="N", help="repeat with N seeds")

    retrieve = _command(commands, "retrieve", "items for one history, or for many users", retrieve_command)
    retrieve.add_argument("--workdir", required=True, metavar="W", help="work folder with a live release")
    who = retrieve.add_mutually_exclusive_group(required=True)
    who.add_argument("--history", metavar="KEYS", help="item keys as in the logs, oldest first, separated by commas")
    who.add_argument("--users", metavar="FILE", help="JSON lines with a 'user' and a 'history' (list of item keys)")
    retrieve.add_argument("--out", metavar="FILE", help="where --users writes its JSON lines")
    retrieve.add_argument("-k", type=_positive, default=10, help="items to return (default: 10)")
    retrieve.add_argument("--beam", type=_positive, help="paths to visit (default: the release's)")
    retrieve.add_argument("--keep-history", action="store_true", help="items of the history may be returned")
    retrieve.add_argument("--block", default="", metavar="KEYS", help="item keys never to return, separated by commas")
    retrieve.add_argument("--explain", action="store_true", help="show the paths visited and what lies on them")
    retrieve.add_argument("--release", metavar="R", help="another release than the live one")

    evaluate = _command(commands, "evaluate", "measure a release again on its test users", evaluate_command)
    evaluate.add_argument("--workdir", required=True, metavar="W")
    evaluate.add_argument("--release", metavar="R", help="another release than the live one")

    report = _command(commands, "report", "draw report/index.html again", report_command)
    report.add_argument("--workdir", required=True, metavar="W")

    releases = _command(commands, "releases", "what is live, and what was", releases_command)
    releases.add_argument("action", choices=("list", "show", "promote", "rollback"))
    releases.add_argument("release", nargs="?", help="for show (default: the live one) and promote")
    releases.add_argument("--workdir", required=True, metavar="W")

    doctor = _command(commands, "doctor", "check Java, Spark, Delta, pins, disk and cores", doctor_command)
    doctor.add_argument("--config", metavar="C", help="also say what K and alpha this configuration would start from")
    doctor.add_argument("--items", type=_positive, metavar="V", help="number of items to assume with --config")
    doctor.add_argument(
        "--set", action="append", default=[], metavar="A.B=V", help="override one key of the configuration"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``dr`` and return its exit code."""
    arguments = build_parser().parse_args(argv)
    start_logging()
    with results_only():
        try:
            answer: Answer = arguments.work(arguments)
        except (Exception, KeyboardInterrupt) as error:
            code = explain(f"dr {arguments.command}", error)
            answer = Answer({"error": str(error) or type(error).__name__, "exit_code": code}, exit_code=code)
    if arguments.json:
        print(json.dumps(answer.document, ensure_ascii=False))
    elif answer.text:
        print(answer.text)
    return answer.exit_code


class Answer:
    """What a command found: a document for machines, a text for people."""

    def __init__(self, document: Any, text: str = "", exit_code: int = 0) -> None:
        self.document, self.text, self.exit_code = document, text, exit_code


def run_command(arguments: argparse.Namespace) -> Answer:
    """``dr run``."""
    from pipelines.config.load import load_config
    from pipelines.flows.day_one import run_day_one
    from pipelines.report.console import trim_console_table

    config = load_config(arguments.config, arguments.set)
    workdir = arguments.workdir or str(Path("var") / "runs" / config.name)
    summary = run_day_one(
        config,
        workdir,
        logs=arguments.logs,
        catalogue=arguments.catalogue,
        num_seeds=arguments.seeds,
        fresh=arguments.fresh,
        interval=_span(arguments),
    )
    report = f"report: {workdir.rstrip('/')}/report/index.html"
    return Answer(summary, f"\n{trim_console_table(summary)}\n\n{report}")


def compare_command(arguments: argparse.Namespace) -> Answer:
    """``dr compare``."""
    _require_peers()
    from pipelines.config.load import load_config
    from pipelines.experiments.compare import compare
    from pipelines.report.console import trim_console_table

    config = load_config(arguments.config, arguments.set)
    workdir = arguments.workdir or str(Path("var") / "runs" / config.name)
    summary = compare(
        config,
        workdir,
        logs=arguments.logs,
        catalogue=arguments.catalogue,
        methods=_keys(arguments.methods),
        num_seeds=arguments.seeds,
        fresh=arguments.fresh,
    )
    report = f"report: {workdir.rstrip('/')}/report/index.html"
    return Answer(summary, f"\n{trim_console_table(summary)}\n\n{report}")


def sweep_command(arguments: argparse.Namespace) -> Answer:
    """``dr sweep``."""
    _require_peers()
    from pipelines.config.load import load_config
    from pipelines.experiments.sweep import sweep

    config = load_config(arguments.config, arguments.set)
    workdir = arguments.workdir or str(Path("var") / "runs" / config.name)
    rows = sweep(
        config,
        workdir,
        logs=arguments.logs,
        catalogue=arguments.catalogue,
        studies=_keys(arguments.studies),
        num_seeds=arguments.seeds,
    )
    return Answer(rows, "\n".join([*sweep_table(rows), f"report: {workdir.rstrip('/')}/report/index.html"]))


SWEEP_COLUMNS = ("overlap", "candidate_recall", "precision", "recall", "multiply_adds", "largest_path", "lift", "nmi")


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table of a sweep's points, with the columns that any of them has; – where one has no figure."""
    shown = [name for name in SWEEP_COLUMNS if any(row.get(name) is not None for row in rows)]
    lines = [f"{'study':17} {'value':>14} " + " ".join(f"{name:>16}" for name in shown)]
    for row in rows:
        cells = " ".join(f"{'–' if row.get(name) is None else format(row[name], '.4g'):>16}" for name in shown)
        lines.append(f"{row['study']:17} {row['value']:>14} {cells}")
    return lines


def refresh_command(arguments: argparse.Namespace) -> Answer:
    """``dr refresh``."""
    from pipelines.config.load import load_config
    from pipelines.flows.refresh import run_refresh

    config = load_config(arguments.config, arguments.set)
    workdir = arguments.workdir or str(Path("var") / "runs" / config.name)
    interval = _span(arguments)
    if interval is None:
        raise ConfigError("--start and --end are needed")
    done = run_refresh(config, workdir, interval, logs=arguments.logs, catalogue=arguments.catalogue)
    lines = [
        f"{done['release_id']} is {done['status']} (parent {done['parent_release']})",
        f"{done['data']['kept']} events kept, {done['items_moved']} items moved, {done['items_placed']} placed",
        *(f"{gate['gate']:18} {gate['text']}" for gate in done["gates"] or []),
        f"trends: {workdir.rstrip('/')}/report/releases.html",
    ]
    return Answer(done, "\n".join(lines))


def retrieve_command(arguments: argparse.Namespace) -> Answer:
    """``dr retrieve``."""
    from pipelines.serving.service import retrieve_history, retrieve_users

    if arguments.users and not arguments.out:
        raise ConfigError("--users needs --out FILE for its answers")
    options = {
        "k": arguments.k,
        "beam": arguments.beam,
        "release_id": arguments.release,
        "keep_history": arguments.keep_history,
        "blocked": _keys(arguments.block),
    }
    if arguments.users:
        count = retrieve_users(arguments.workdir, arguments.users, arguments.out, **options)
        return Answer({"users": count, "out": arguments.out}, f"{count} users written to {arguments.out}")
    found = retrieve_history(arguments.workdir, _keys(arguments.history), explain=arguments.explain, **options)
    return Answer(found.document, found.text)


def evaluate_command(arguments: argparse.Namespace) -> Answer:
    """``dr evaluate``."""
    from pipelines.flows.evaluate_release import evaluate_release
    from pipelines.report.console import trim_console_table

    summary = evaluate_release(arguments.workdir, arguments.release)
    return Answer(summary, trim_console_table(summary))


def report_command(arguments: argparse.Namespace) -> Answer:
    """``dr report``."""
    from pipelines.report.build import redraw
    from pipelines.storage.workdir import Workdir

    workdir = Workdir(arguments.workdir)
    redraw(workdir)
    return Answer({"report": workdir.path("report", "index.html")}, workdir.path("report", "index.html"))


def releases_command(arguments: argparse.Namespace) -> Answer:
    """``dr releases``."""
    from pipelines.spark.session import spark_session
    from pipelines.storage.publish import promote, rollback
    from pipelines.storage.releases import find_release, list_releases
    from pipelines.storage.workdir import Workdir

    with spark_session("dr releases") as spark:
        workdir = Workdir(arguments.workdir)
        if arguments.action == "show":
            document = find_release(workdir, arguments.release).as_dict()
            return Answer(document, "\n".join(f"{name:15} {value}" for name, value in document.items()))
        if arguments.action in ("promote", "rollback"):
            if arguments.action == "promote" and arguments.release is None:
                raise ConfigError("promote needs the release: dr releases promote RELEASE --workdir W")
            if arguments.action == "rollback" and arguments.release is not None:
                raise ConfigError("rollback goes to the live release's parent; to choose another: dr releases promote")
            live = rollback(spark, workdir) if arguments.release is None else promote(spark, workdir, arguments.release)
            return Answer(live.as_dict(), f"{live.release_id} is live")
        rows = [release.as_dict() for release in list_releases(workdir)]
    lines = [f"{row['release_id']:40} {row['status']:10} {row['created_at']}" for row in rows]
    return Answer(rows, "\n".join(lines) or f"no releases in {arguments.workdir}")


def doctor_command(arguments: argparse.Namespace) -> Answer:
    """``dr doctor``."""
    from pipelines.cli.doctor import examine

    checks = examine(arguments.config, arguments.items, arguments.set)
    lines = [
        f"{'ok ' if check.ok else 'BAD'}  {check.name:11} "
        + check.found.replace("\n", "\n" + " " * 17)
        + ("" if check.ok else f"  ->  {check.mend}")
        for check in checks
    ]
    healthy = all(check.ok for check in checks)
    return Answer([vars(check) for check in checks], "\n".join(lines), 0 if healthy else 2)


def _require_peers() -> None:
    missing = [name for name in ("faiss", "implicit", "threadpoolctl") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} not installed: rivals need the extra, pip install 'deep-retrieval[peers]'"
        )


def _command(
    commands: Any, name: str, text: str, work: Callable[[argparse.Namespace], Answer]
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(work=work)
    return parser


def _configured(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="C", help="YAML file; conf/ holds one for every world")
    parser.add_argument(
        "--workdir", default=None, metavar="W", help="work folder, a path or URI (default: var/runs/<config name>)"
    )
    parser.add_argument("--logs", metavar="P", help="the logs, in place of dataset.path")
    parser.add_argument("--catalogue", metavar="P", help="the catalogue, in place of dataset.catalogue")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="A.B=V",
        help="override one key of the configuration; may be repeated",
    )


def _interval(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--start", required=required, metavar="T0", help="first moment of the interval, an ISO date or moment (UTC)"
    )
    parser.add_argument("--end", required=required, metavar="T1", help="end of the interval, not part of it")


def _span(arguments: argparse.Namespace) -> Any:
    from pipelines.stages.ingest.interval import Interval

    if (arguments.start is None) != (arguments.end is None):
        raise ConfigError("--start and --end belong together")
    return None if arguments.start is None else Interval.parse(arguments.start, arguments.end)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, was {value}")
    return value


def _keys(text: str | None) -> list[str]:
    return [key.strip() for key in (text or "").split(",") if key.strip()]


if __name__ == "__main__":
    sys.exit(main())
