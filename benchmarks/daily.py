"""Does a daily refresh pay? ``python -m benchmarks.daily --world gowalla --logs gowalla_checkins.parquet``.

Day one learns the first half of the events; the second half comes in intervals of equal length. Recall on each *next*
interval, on users never trained on, of (a) the release refreshed every interval, (b) the first release, frozen, and
(c) a full run on everything so far; with the seconds of their stages and the share of items that moved. ``--cost`` instead
measures a day of the same size after 1, 2 and 4 times the history. One JSON line each, and a picture.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from pyspark.sql import SparkSession

from benchmarks.deliveries import Deliveries
from dr_core.errors import GateRefused
from dr_core.evaluation.bootstrap import paired_bootstrap
from dr_core.evaluation.evaluator import EvaluationUsers
from pipelines.cli.console import start_logging
from pipelines.config.load import load_config
from pipelines.config.run import RunConfig
from pipelines.datasets.synthetic import SyntheticConfig
from pipelines.datasets.synthetic import write as write_synthetic
from pipelines.flows.day_one import run_day_one
from pipelines.flows.gates import fixed_users, recall_of
from pipelines.flows.refresh import run_refresh
from pipelines.spark.session import spark_session
from pipelines.stages.ingest.interval import Interval
from pipelines.storage.publish import promote, rollback
from pipelines.storage.releases import find_release, list_releases, live_release
from pipelines.storage.workdir import Workdir

ROOT = Path(__file__).parents[1]
ALONE = (
    "preprocess.cumulative=true", "preprocess.partition_unit=month", "evaluation.controls=false",
    "evaluation.random_start_rounds=0", "evaluation.other_paths_per_item=[]", "evaluation.curve_shares=[0.01]",
)  # fmt: skip
DRIFT = SyntheticConfig(num_users=2000, num_items=1500, mean_events=60, num_days=60, drift=0.8, new_item_share=0.3)
logger = logging.getLogger("pipelines.daily")


def intervals_of(times: npt.NDArray[np.float64], num_intervals: int) -> list[Interval]:
    """Return the span of the first half of the events, then the rest in spans of equal length (whole hours)."""
    first, middle, last = (int(moment) for moment in (times.min(), np.median(times), times.max() + 1))
    edges = [first, *np.linspace(middle, last + 3600, num_intervals + 1).astype(np.int64) // 3600 * 3600]
    moments = [pd.Timestamp(edge, unit="s", tz="UTC").isoformat() for edge in edges]
    return [Interval.parse(start, end) for start, end in zip(moments, moments[1:], strict=False)]


def stage_seconds(record_stages: list[dict[str, Any]]) -> float:
    """Return the seconds of all stages but the measurement against controls, which only day one has."""
    return sum(stage["seconds"] for stage in record_stages if stage["name"] != "evaluate")


def translated(spark: SparkSession, users: EvaluationUsers, source: Workdir, target: Workdir) -> EvaluationUsers:
    """Return the same users with the item ids of another folder; items that it does not know can never be found."""
    keys = {row.item_id: row.item_key for row in source.read(spark, "items").collect()}
    ids = {row.item_key: row.item_id for row in target.read(spark, "items").collect()}

    def there(items: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.array([ids.get(keys[item], len(ids) + item) for item in items.tolist()], dtype=np.int64)

    return EvaluationUsers(users.users, [there(h) for h in users.histories], [np.sort(there(t)) for t in users.truths])


def held_out(spark: SparkSession, workdir: Workdir) -> set[str]:
    """Return the users never trained on."""
    return {
        row.user for row in workdir.read(spark, "evaluation_users").where("role in ('test', 'validation')").collect()
    }


def pays(
    spark: SparkSession, world: str, config: RunConfig, logs: str, folder: Path, num_intervals: int, k: int
) -> dict[str, Any]:
    """Run the three policies and measure them on every next interval."""
    times = pq.read_table(logs, columns=[config.dataset.columns.time or "timestamp"]).column(0).to_numpy().astype(float)
    first, *later = intervals_of(times, num_intervals)
    a = Workdir(str(folder / "refreshed"))
    run_day_one(config, a.uri, logs=logs, interval=first)
    frozen = list_releases(a)[-1]
    recalls: dict[str, dict[bool, list[Any]]] = {name: {True: [], False: []} for name in ("refresh", "frozen", "full")}
    seconds: dict[str, list[float]] = {"refresh": [], "full": []}
    moved, publishing, statuses, by_interval = [], [], [], []
    full = a
    for number, interval in enumerate(later):
        try:
            done = run_refresh(config, a.uri, interval, logs=logs)
            before = find_release(a, done["parent_release"])
            seconds["refresh"].append(stage_seconds(done["stages"]))
            publishing += [stage["seconds"] for stage in done["stages"] if stage["name"] == "publish"]
            moved.append(done["items_moved"] / max(before.num_items, 1))
            statuses.append(done["status"])
        except GateRefused as error:
            before = find_release(a, None)
            statuses.append(f"refused: {error}")
        users = fixed_users(spark, a, interval.label, interval.start)
        both = held_out(spark, a) & held_out(spark, full)
        chosen = [place for place, name in enumerate(users.users) if name in both]
        users = EvaluationUsers(
            *([part[place] for place in chosen] for part in (users.users, users.histories, users.truths))
        )
        full_live = frozen if full is a else find_release(full, None)
        there = translated(spark, users, a, full)
        row: dict[str, Any] = {"interval": interval.label, "users": len(users)}
        for filtered in (True, False):
            for name, place, whom, release in (
                ("refresh", a, users, before), ("frozen", a, users, frozen), ("full", full, there, full_live),
            ):  # fmt: skip
                recall, _ = recall_of(place, whom, release.release_id, k=k, filter_history=filtered)
                row[f"{name}_{'filtered' if filtered else 'unfiltered'}"] = float(np.nanmean(recall))
                if number > 0:  # before the first refresh (a) and (b) are the same release
                    recalls[name][filtered].append(recall)
        by_interval.append(row)
        logger.info("%s", json.dumps(row))
        if number + 1 < len(later):
            full = Workdir(str(folder / f"full-{number + 1}"))
            summary = run_day_one(config, full.uri, logs=logs, interval=Interval(first.start, interval.end))
            seconds["full"].append(stage_seconds(summary["stages"]))
            if number > 0:
                shutil.rmtree(folder / f"full-{number}")
    line: dict[str, Any] = {"benchmark": "daily", "world": world, "intervals": num_intervals, "k": k}
    for filtered in (True, False):
        pooled = {name: np.concatenate(values[filtered]) for name, values in recalls.items()}
        figures: dict[str, Any] = {name: round(float(np.nanmean(values)), 4) for name, values in pooled.items()}
        for other in ("frozen", "full"):
            difference = paired_bootstrap(pooled["refresh"], pooled[other], 1000, 0)
            figures[f"refresh_minus_{other}"] = [round(value, 4) for value in difference]
        figures["refresh_of_full"] = round(figures["refresh"] / figures["full"], 4)
        line["filtered" if filtered else "unfiltered"] = figures
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    line["seconds"] = {name: round(value, 1) for name, value in medians.items()}
    line["seconds_refresh_of_full"] = round(medians["refresh"] / medians["full"], 3)
    line["items_moved"] = [round(share, 4) for share in moved]
    line["statuses"] = statuses
    line["publish_seconds"], line["rollback_seconds"] = (
        round(float(np.median(publishing)), 2),
        rollback_seconds(spark, a),
    )
    line["by_interval"] = by_interval
    return line


def rollback_seconds(spark: SparkSession, workdir: Workdir) -> float:
    """Return the median time of going back to the parent and forth again, within a session."""
    live, seconds = live_release(workdir), []
    assert live is not None
    for _ in range(3):
        started = time.perf_counter()
        rollback(spark, workdir)
        seconds.append(time.perf_counter() - started)
        promote(spark, workdir, live.release_id)
    return round(float(np.median(seconds)), 2)


def draw(line: dict[str, Any], target: Path) -> None:
    """Draw recall by interval of the three policies, filtered and unfiltered."""
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    rows = line["by_interval"]
    for panel, kind in zip(figure.subplots(1, 2, sharex=True), ("filtered", "unfiltered"), strict=True):
        for name, style in (("refresh", "o-"), ("frozen", "s--"), ("full", "^:")):
            panel.plot(range(1, len(rows) + 1), [row[f"{name}_{kind}"] for row in rows], style, label=name)
        panel.set_title(f"{line['world']}, history {'removed' if kind == 'filtered' else 'kept'}")
        panel.set_xlabel("interval")
        panel.set_ylabel(f"recall at {line['k']} on the next interval")
        panel.set_ylim(bottom=0)
    panel.legend(frameon=False)
    figure.savefig(target)


def cost_of_a_day(folder: Path) -> dict[str, Any]:
    """Refresh the same day after 1, 2 and 4 times the history; median of three days each."""
    overrides = [*ALONE, "dataset.format=parquet", "dataset.columns={user: user_id, item: item_id, time: timestamp}",
                 "dataset.catalogue_columns={item: item_id, active: active}", "preprocess.max_quarantine_share=0.5",
                 "preprocess.cumulative=false", "preprocess.positive={kind: all}",
                 "gates.max_recall_loss=1.0", "gates.max_rows_share=100"]  # fmt: skip
    config = load_config(str(ROOT / "conf" / "demo.yaml"), overrides)
    rows = []
    for factor in (1, 2, 4):
        first_days = 10 * factor
        world = Deliveries(folder / f"logs-{factor}", first_days, 3, 0, min_events=config.preprocess.min_events,
                           num_users=3000, num_items=2000, mean_events=2.0 * first_days)  # fmt: skip
        workdir = str(folder / f"W-{factor}")
        log, catalogue = world.write(first_days - 1)
        day_one = run_day_one(config, workdir, logs=log, catalogue=catalogue, interval=world.interval(first_days - 1))
        days = []
        for day in range(first_days, first_days + 3):
            log, catalogue = world.write(day)
            days.append(run_refresh(config, workdir, world.interval(day), logs=log, catalogue=catalogue))
        rows.append({
            "history": factor, "events": day_one["data"]["events"], "events_of_a_day": days[-1]["data"]["kept"],
            "seconds": round(float(np.median([stage_seconds(day["stages"]) for day in days])), 1),
            "seconds_full": round(stage_seconds(day_one["stages"]), 1),
            "stages": {stage["name"]: stage["seconds"] for stage in days[-1]["stages"]},
        })  # fmt: skip
        logger.info("%s", json.dumps(rows[-1]))
    return {"benchmark": "cost_of_a_day", "rows": rows, "ratio_4x": round(rows[-1]["seconds"] / rows[0]["seconds"], 3)}


def main() -> int:
    """Run one world, or the cost of a day."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.daily", description=__doc__)
    parser.add_argument("--world", choices=("gowalla", "drift"), default="drift")
    parser.add_argument("--logs", help="gowalla_checkins.parquet")
    parser.add_argument("--intervals", type=int, default=10)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--cost", action="store_true", help="measure a day after 1, 2 and 4 times the history instead")
    parser.add_argument("--picture", type=Path, help="SVG file to draw")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder, removed at the end)")
    arguments = parser.parse_args()
    start_logging()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="daily"))
    name = "gowalla" if arguments.world == "gowalla" else "demo"
    config = load_config(str(ROOT / "conf" / f"{name}.yaml"), list(ALONE))
    logs = arguments.logs
    started = time.monotonic()
    with spark_session("daily", master=config.spark.master, conf=config.spark.conf) as spark:
        if arguments.cost:
            line = cost_of_a_day(folder)
        else:
            if arguments.world == "drift":
                logs, _ = write_synthetic(DRIFT, str(folder / "raw"))
            line = pays(spark, arguments.world, config, logs, folder, arguments.intervals, arguments.k)
    if arguments.picture and not arguments.cost:
        draw(line, arguments.picture)
    if arguments.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(line | {"minutes": round((time.monotonic() - started) / 60, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
