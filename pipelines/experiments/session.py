"""One lease and one Spark session for a whole experiment: day one where it has not been run, then what is beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.config.run import RunConfig
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.flows.day_one import clear, learned_runs, run_seeds, seeds_run
from pipelines.spark.session import spark_session
from pipelines.storage.lease import lease
from pipelines.storage.workdir import Workdir


def seeds_to_report(
    config: RunConfig, workdir: Workdir, logs: str | None, catalogue: str | None, num_seeds: int
) -> int:
    """Return how many seeds a report is of: those that were asked for, and no fewer than day one was run with."""
    return max(num_seeds, seeds_run(config, workdir, logs, catalogue))


@contextmanager
def learned_seeds(
    command: str,
    config: RunConfig,
    workdir_uri: str,
    logs: str | None,
    catalogue: str | None,
    num_seeds: int,
    *,
    fresh: bool = False,
) -> Iterator[list[LearnedRun]]:
    """Hold the work folder and a session while day one is run, where it is not finished, and something beside it.

    Args:
        command: of ``dr``; names the session.
        num_seeds: wanted at least; seeds that the folder holds already stay.

    Yields:
        The runs of all seeds, the first being the released one.
    """
    workdir = Workdir(workdir_uri)
    workdir.filesystem.makedirs(workdir.path("runs"), exist_ok=True)
    session = spark_session(f"dr {command} {config.name}", master=config.spark.master, conf=config.spark.conf)
    with lease(workdir, "run"):
        if fresh:
            clear(workdir)
        all_seeds = seeds_to_report(config, workdir, logs, catalogue, num_seeds)
        with session as spark:
            run_seeds(spark, config, workdir, logs, catalogue, all_seeds)
            yield learned_runs(spark, config, workdir, logs, catalogue, all_seeds)
