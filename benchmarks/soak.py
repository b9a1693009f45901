"""Days of refreshes that are killed, fed late, twice and badly, and checked after each: ``python -m benchmarks.soak``.

Two parts, each ending with one JSON line. *Soak*: a first delivery and then one a day, each refreshed by the real ``dr
refresh`` in a process group that is killed (-9) at seeded moments or at named points and started again; one day is cut
short and refused, some items are retired, a user asks to be removed, old releases are deleted. *Crash matrix*: a day killed
at one named point after the other, each time in a process of its own, and after each finished in a copy by the same
command's ``main`` within this process; all tables must equal those of an undisturbed day.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks.deliveries import Deliveries
from dr_core.errors import DeepRetrievalError
from dr_core.learning.checkpoint import load_model
from dr_core.retrieval.from_model import model_retriever
from jobs import maintenance
from pipelines.cli import main as cli
from pipelines.config.load import load_config
from pipelines.evaluation.users import load_users
from pipelines.spark.session import spark_session
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.structure.index import load_index
from pipelines.storage.faults import VARIABLE
from pipelines.storage.releases import Release, list_releases, live_release
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "benchmarks" / "soak.yaml"
FIRST_DAYS = 9
REFRESH_POINTS = (
    "ingest:before", "write:quarantine:before", "write:quarantine:after", "write:items:before", "write:items:after",
    "write:interactions:before", "write:interactions:after", "write:seen_items:before", "write:seen_items:after",
    "roles:after", "write:user_histories:before", "write:user_histories:after",
    "write:intervals:before", "write:intervals:after",
    "samples:before", "samples:after", "checkpoint:half", "model:half", "e_step:after", "targets:after",
    "write:path_scores:before", "write:path_scores:after", "write:item_stats:after", "write:item_paths:before",
    "write:item_paths:after", "assign:after", "e_step_final:after", "write:path_items:before", "write:path_items:after",
    "gates:after", "publish:before", "publish:inside", "publish:after", "write:recommendations:before",
    "write:recommendations:after",
)  # fmt: skip
MAINTENANCE_POINTS = ("delete:path_scores:before", "delete:path_items:before", "vacuum:before", "vacuum:after")
FREE_COLUMNS = ("created_at", "model_uri", "gates")
"""Columns of ``releases`` that hold moments and folders."""


@dataclass(frozen=True)
class Programs:
    """Runs programs of this project, each in a process group of its own.

    Attributes:
        archive: of loaded JVM classes; written by the first program, read by the later ones (a fifth of their time).
    """

    archive: Path

    def call(self, *words: str, crash_at: str = "", kill_after: float | None = None) -> tuple[int, float]:
        """Run one; return its exit code and seconds.

        Args:
            crash_at: named point at which it kills itself.
            kill_after: seconds after which the whole group is killed; the code is then -9.
        """
        use = "SharedArchiveFile" if self.archive.exists() else "ArchiveClassesAtExit"
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "JDK_JAVA_OPTIONS": f"-XX:{use}={self.archive} -Xlog:disable",
            VARIABLE: crash_at,
        }
        started = time.monotonic()
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                [sys.executable, *words], stdout=subprocess.DEVNULL, stderr=log, env=environment, start_new_session=True
            )
            try:
                code = process.wait(kill_after)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
            if code not in (0, 3, -signal.SIGKILL):
                log.seek(0)
                print(log.read()[-6000:], file=sys.stderr)
        return code, time.monotonic() - started


def day_command(kind: str, workdir: Path, logs: tuple[str, str], interval: Interval) -> list[str]:
    """Return the words of ``dr run`` or ``dr refresh`` for a delivery."""
    return [
        "-m", "pipelines.cli.main", kind, "--config", str(CONFIG), "--workdir", str(workdir), "--logs", logs[0],
        "--catalogue", logs[1], "--start", interval.start.isoformat(), "--end", interval.end.isoformat(),
    ]  # fmt: skip


def contents(spark: SparkSession, workdir: Workdir, table: str) -> pd.DataFrame:
    """Return a table's rows in a defined order, without moments of this run."""
    rows = workdir.read(spark, table).drop(*FREE_COLUMNS).toPandas()
    for column in rows.columns:
        if rows[column].map(lambda value: isinstance(value, list | np.ndarray)).any():
            rows[column] = rows[column].map(tuple)
    return rows.sort_values(list(rows.columns)).reset_index(drop=True)


def answers(workdir: Workdir, release: Release, histories: list[list[int]]) -> Any:
    """Return the ten best items of a release for some histories, int64 [U, 10]."""
    model = load_model(workdir.filesystem, workdir.path("models", release.release_id))
    retriever = model_retriever(model, load_index(workdir, release.release_id), width=8, max_length=20)
    return retriever.retrieve(retriever.encode(histories), 10).item_Uk


@dataclass
class Findings:
    """What the checks found."""

    kills: int = 0
    checks: int = 0
    events_lost: int = 0
    events_doubled: int = 0
    wrong: list[str] = field(default_factory=list)

    def check(self, holds: bool, text: str) -> None:
        """Count a check; keep the text when it does not hold."""
        self.checks += 1
        if not holds:
            self.wrong.append(text)
            print(f"  WRONG: {text}", file=sys.stderr, flush=True)


class Soak:
    """Simulated days in one work folder."""

    def __init__(
        self, spark: SparkSession, programs: Programs, folder: Path, *, days: int, kills: int, seed: int
    ) -> None:
        self.spark, self.programs, self.days, self.kills_wanted = spark, programs, days, kills
        self.rng = np.random.default_rng(seed)
        middle = FIRST_DAYS + days // 2
        config = load_config(str(CONFIG))
        self.deliveries = Deliveries(
            folder / "logs",
            FIRST_DAYS,
            days,
            seed,
            min_events=config.preprocess.min_events,
            late_days=int(config.preprocess.late_days),
            short_day=middle,
            retired_day=middle + 2,
        )
        self.removal_day = middle + 1
        self.root, self.workdir = folder / "W", Workdir(str(folder / "W"))
        self.found = Findings()
        self.ids: dict[str, int] = {}
        self.rows_in: dict[str, int] = {}
        self.seconds = 60.0

    def run(self) -> Findings:
        """Run all days; return what was found."""
        first = FIRST_DAYS - 1
        logs = self._deliver(first)
        code, _ = self.programs.call(*day_command("run", self.root, logs, self.deliveries.interval(first)))
        self.found.check(code == 0, f"the first run ended with {code}")
        self._check_day(first)
        for day in range(FIRST_DAYS, FIRST_DAYS + self.days):
            self._day(day)
        return self.found

    def _deliver(self, day: int) -> tuple[str, str]:
        logs = self.deliveries.write(day)
        self.deliveries.expect(day)
        self.rows_in[self.deliveries.interval(day).label] = len(pd.read_parquet(logs[0]))
        return logs

    def _day(self, day: int) -> None:
        logs = self._deliver(day)
        command = day_command("refresh", self.root, logs, self.deliveries.interval(day))
        left = FIRST_DAYS + self.days - day
        before = live_release(self.workdir)
        planned = -(-(self.kills_wanted - self.found.kills) // left)
        for number in range(planned):
            if self.rng.random() < 0.5:
                point = str(self.rng.choice(REFRESH_POINTS))
                code, seconds = self.programs.call(*command, crash_at=point)
            else:
                point = f"{self.rng.uniform(4, 0.8 * self.seconds):.1f} s"
                code, seconds = self.programs.call(*command, kill_after=float(point.split()[0]))
            killed = code == -signal.SIGKILL
            self.found.kills += killed
            print(f"  day {day} try {number}: {point}, exit {code}, {seconds:.0f} s", file=sys.stderr, flush=True)
            self._check_reader(day)
            if not killed:
                break
        code, seconds = self.programs.call(*command)
        is_short = day == self.deliveries.short_day
        self.found.check(code == (3 if is_short else 0), f"day {day} ended with {code}")
        if is_short:
            self.found.check(live_release(self.workdir) == before, f"day {day} was refused but changed live")
        elif not planned:
            self.seconds = seconds
        if day == self.removal_day:
            self._remove_user()
        if day == FIRST_DAYS + self.days - 2:
            code, _ = self.programs.call(str(ROOT / "jobs" / "maintenance.py"), f"--workdir={self.root}", "--run-id=m",
                           f"--config={CONFIG}", "--vacuum-hours=0")  # fmt: skip
            self.found.check(code == 0, f"maintenance ended with {code}")
        self._check_day(day)
        print(f"day {day}: {self.found.checks} checks, {self.found.kills} kills, wrong: {len(self.found.wrong)}",
              file=sys.stderr, flush=True)  # fmt: skip

    def _remove_user(self) -> None:
        roles = self.workdir.read(self.spark, "evaluation_users").toPandas()["user"]
        user = next(name for name in sorted(set(self.deliveries.expected["user"])) if name not in set(roles))
        code, _ = self.programs.call(str(ROOT / "jobs" / "delete_user.py"), f"--workdir={self.root}", "--run-id=d",
                       f"--user={user}", "--vacuum-now")  # fmt: skip
        self.found.check(code == 0, f"the removal of a user ended with {code}")
        self.deliveries.remove_user(user)

    def _check_reader(self, day: int) -> None:
        """What a server sees right after a kill: one live release, whole."""
        live = live_release(self.workdir)
        self.found.check(live is not None, f"day {day}: nothing is live after a kill")
        if live is not None:
            try:
                found = answers(self.workdir, live, [[0, 1, 2]])
                self.found.check(found[0, 0] >= 0, f"day {day}: {live.release_id} finds nothing after a kill")
            except DeepRetrievalError as error:
                self.found.check(False, f"day {day}: {live.release_id} is not readable after a kill: {error}")

    def _check_day(self, day: int) -> None:
        found, spark, workdir = self.found, self.spark, self.workdir
        there = workdir.read(spark, "interactions").join(workdir.read(spark, "items"), "item_id").select(
            "user", F.col("item_key").alias("item"), F.unix_seconds("event_time").alias("timestamp")
        ).toPandas()  # fmt: skip
        distinct = there.drop_duplicates()
        both = distinct.merge(self.deliveries.expected, how="inner")
        lost, more = len(self.deliveries.expected) - len(both), len(there) - len(both)
        found.events_lost, found.events_doubled = found.events_lost + lost, found.events_doubled + more
        found.check(lost == 0, f"day {day}: {lost} events are lost")
        found.check(more == 0, f"day {day}: {more} events are there twice or should not be there")

        items = workdir.read(spark, "items").toPandas()
        ids = dict(zip(items["item_key"], items["item_id"], strict=True))
        found.check({key: ids.get(key) for key in self.ids} == self.ids, f"day {day}: item ids changed")
        found.check(sorted(ids.values()) == list(range(len(ids))), f"day {day}: item ids have gaps")
        self.ids = ids

        ledger = workdir.read(spark, "intervals").toPandas()
        found.check(dict(zip(ledger["source_interval"], ledger["rows_in"], strict=True)) == self.rows_in,
                    f"day {day}: the ledger counts other rows than were delivered")  # fmt: skip
        sums = ledger["kept"] + ledger["quarantined"] + ledger["filtered"]
        found.check(
            bool((sums == ledger["rows_in"]).all()), f"day {day}: rows in are not kept + quarantined + filtered"
        )
        quarantined = workdir.read(spark, "quarantine").count()
        wanted = len(self.deliveries.quarantined)
        found.check(quarantined == wanted, f"day {day}: {quarantined} rows are quarantined, not {wanted}")

        rows = list_releases(workdir)
        found.check([row.status for row in rows].count("live") == 1, f"day {day}: not exactly one live release")
        live = next(row for row in rows if row.status == "live")
        known = items[items["item_id"] < live.num_items]
        active = set(known.loc[known["active"], "item_id"])
        paths = workdir.read_release(spark, "item_paths", live.release_id).toPandas()
        placed = paths[paths["item_id"].isin(active)]
        num_paths = placed.groupby("item_id")["path_id"].nunique()
        found.check(set(num_paths.index) == active, f"day {day}: active items without a path")
        found.check(bool((num_paths == live.J).all()), f"day {day}: items not on {live.J} distinct paths")
        index = workdir.read_release(spark, "path_items", live.release_id).toPandas()
        inverse = {
            (item, path) for path, members in zip(index["path_id"], index["item_ids"], strict=True) for item in members
        }
        forward = set(zip(placed["item_id"], placed["path_id"], strict=True))
        found.check(inverse == forward, f"day {day}: the index is not the inverse of the mapping")
        users = load_users(spark, workdir, "test", live.num_items)
        lists = answers(workdir, live, [list(history) for history in users.histories])
        found.check(bool((lists[:, 0] >= 0).all()), f"day {day}: a test user gets nothing")
        found.check(set(lists[lists >= 0].tolist()) <= active, f"day {day}: an inactive item is retrieved")
        for user in self.deliveries.removed_users:
            rest = sum(workdir.read(spark, name).where(F.col("user") == user).count()
                       for name in ("interactions", "seen_items", "user_histories", "recommendations")
                       if workdir.has_table(spark, name))  # fmt: skip
            found.check(rest == 0, f"day {day}: {rest} rows of the removed user are there")


class CrashMatrix:
    """A day killed at every named point; finished by the same command after each, it equals an undisturbed one."""

    def __init__(self, spark: SparkSession, programs: Programs, folder: Path, seed: int) -> None:
        self.spark, self.programs, self.folder = spark, programs, folder
        deliveries = Deliveries(folder / "logs", FIRST_DAYS, 2, seed, min_events=5)
        first_logs, self.logs = deliveries.write(FIRST_DAYS - 1), deliveries.write(FIRST_DAYS)
        self.interval = deliveries.interval(FIRST_DAYS)
        self.base, self.calm, self.tidy = folder / "base", folder / "calm", folder / "tidy"
        code, _ = programs.call(*day_command("run", self.base, first_logs, deliveries.interval(FIRST_DAYS - 1)))
        _require(code == 0, f"the first run ended with {code}")
        for start, place, words in (
            (self.base, self.calm, self._refresh(self.calm)),
            (self.calm, self.tidy, self._maintenance(self.tidy)),
        ):
            shutil.copytree(start, place)
            code, seconds = programs.call(*words)
            _require(code == 0, f"undisturbed: {words} ended with {code}")
            print(f"undisturbed: {seconds:.0f} s", file=sys.stderr, flush=True)
        self.wanted = {place: self._contents(place) for place in (self.calm, self.tidy)}

    def _refresh(self, place: Path) -> list[str]:
        return day_command("refresh", place, self.logs, self.interval)

    def _maintenance(self, place: Path) -> list[str]:
        return [str(ROOT / "jobs" / "maintenance.py"), f"--workdir={place}", "--run-id=m", f"--config={CONFIG}",
                "--vacuum-hours=0"]  # fmt: skip

    def _contents(self, place: Path) -> dict[str, pd.DataFrame]:
        return {table: contents(self.spark, Workdir(str(place)), table) for table in SCHEMAS}

    def run(self, points: Sequence[str]) -> dict[str, Any]:
        """Kill a day, and then its maintenance, at one point after the other; finish a copy of the folder after each.

        So a day has been killed at all points before, too, when it is killed at the next one.
        """
        started = time.monotonic()
        kills, endings, wrong = 0, [], []
        with ThreadPoolExecutor(1) as pool:
            for start, words, wanted, some in (
                (self.base, self._refresh, self.calm, [point for point in points if point not in MAINTENANCE_POINTS]),
                (self.calm, self._maintenance, self.tidy, [point for point in points if point in MAINTENANCE_POINTS]),
            ):
                day = self.folder / f"killed-{start.name}"
                shutil.copytree(start, day)
                for point in some:
                    code, seconds = self.programs.call(*words(day), crash_at=point)
                    kills += code == -signal.SIGKILL
                    if code != -signal.SIGKILL:
                        wrong.append(f"{point}: never reached, exit {code}")
                    place = self.folder / point.replace(":", "_")
                    shutil.copytree(day, place)
                    print(f"{point}: exit {code} after {seconds:.0f} s", file=sys.stderr, flush=True)
                    endings.append(pool.submit(self._finish, point, place, words(place), wanted))
            wrong += [text for ending in endings for text in ending.result()]
        for text in wrong:
            print(f"  WRONG: {text}", file=sys.stderr)
        return {
            "benchmark": "crash_matrix",
            "points": len(points),
            "kills": kills,
            "differences": len(wrong),
            "seconds": round(time.monotonic() - started),
        }

    def _finish(self, point: str, place: Path, words: list[str], wanted: Path) -> list[str]:
        """Check what a reader sees after a kill, finish by the same command, and compare; return what is wrong."""
        wrong, workdir = [], Workdir(str(place))
        live = live_release(workdir)
        if live is None or answers(workdir, live, [[0, 1, 2]])[0, 0] < 0:
            wrong.append(f"{point}: the live release does not answer after the kill")
        started = time.monotonic()
        with redirect_stderr(io.StringIO()) as said:
            code = cli.main(words[2:]) if words[0] == "-m" else maintenance.main(words[1:])
        seconds = time.monotonic() - started
        if code != 0:
            wrong.append(f"{point}: the same command ended with {code}: {said.getvalue()[-2000:]}")
        there = self._contents(place)
        wrong += [
            f"{point}: {table} differs" for table in SCHEMAS if not there[table].equals(self.wanted[wanted][table])
        ]
        self.spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
        shutil.rmtree(place)
        print(f"  {point}: finished in {seconds:.0f} s, wrong: {wrong}", file=sys.stderr, flush=True)
        return wrong


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise SystemExit(text)


def main() -> int:
    """Run both parts, or one; exit code 1 when anything was lost, doubled or different."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--days", type=int, default=10, help="days after the first delivery (default: 10)")
    parser.add_argument("--kills", type=int, default=20, help="kills, at least, over these days (default: 20)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("soak", "crash_matrix"))
    parser.add_argument(
        "--points", nargs="*", default=[*REFRESH_POINTS, *MAINTENANCE_POINTS], help="of the crash matrix"
    )
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder, removed at the end)")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="soak"))
    folder.mkdir(parents=True, exist_ok=True)
    programs = Programs(folder / "classes.jsa")
    bad = 0
    # This process reads hundreds of tables in hundreds of folders: the plans of its queries must not pile up.
    few = {"spark.ui.retainedJobs": "20", "spark.ui.retainedStages": "20", "spark.sql.ui.retainedExecutions": "5"}
    config = load_config(str(CONFIG)).spark
    with spark_session("soak", master=config.master, conf=config.conf | few | {"spark.driver.memory": "3g"}) as spark:
        if arguments.only != "crash_matrix":
            started = time.monotonic()
            found = Soak(
                spark, programs, folder / "soak", days=arguments.days, kills=arguments.kills, seed=arguments.seed
            ).run()
            print(json.dumps({
                "benchmark": "soak", "days": arguments.days, "kills": found.kills, "checks": found.checks,
                "events_lost": found.events_lost, "events_doubled": found.events_doubled, "wrong": found.wrong,
                "seconds": round(time.monotonic() - started),
            }), flush=True)  # fmt: skip
            bad += len(found.wrong)
        if arguments.only != "soak":
            matrix = CrashMatrix(spark, programs, folder / "matrix", arguments.seed)
            line = matrix.run(arguments.points)
            print(json.dumps(line))
            bad += int(line["differences"])
    if arguments.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
