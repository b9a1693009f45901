"""One lease and one Spark session for a whole experiment: day one where it has not been run, then what is beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.config.run import RunConfig
from pipelines.evaluation.learned_run import LearnedRun
from pipelines.flows.day_one import Source, identities, open_runs, run_stages, seeds_run
from pipelines.storage.workdir import Workdir


@contextmanager
def learned_seeds(
    command: str, config: RunConfig, workdir_uri: str, source: Source, num_seeds: int, *, fresh: bool = False
) -> Iterator[list[LearnedRun]]:
    """Hold the work folder and a session while day one is run, where it is not finished, and something beside it.

    Args:
        command: of ``dr``; names the session.
        config, workdir_uri, source: of day one.
        num_seeds: wanted at least; seeds that the folder holds already stay.
        fresh: start anew, in the place of what the folder holds.

    Yields:
        The runs of all seeds, the first being the released one.
    """
    all_seeds = num_seeds if fresh else seeds_to_report(config, Workdir(workdir_uri), source, num_seeds)
    with open_runs(f"dr {command} {config.name}", config, workdir_uri, source, all_seeds, fresh=fresh) as runs:
        run_stages(runs)
        yield runs


def seeds_to_report(config: RunConfig, workdir: Workdir, source: Source, num_seeds: int) -> int:
    """Return how many seeds a report is of: those that were asked for, and no fewer than day one was run with."""
    return max(num_seeds, seeds_run(config, workdir, source))


def measured_identity(run: LearnedRun) -> str:
    """Return a hash of what every figure beside a run depends on: the run as it is served, and how lists are measured."""
    evaluation = run.config.evaluation
    parts = [identities(run)["serving"], run.config.list_lengths, evaluation.curve_shares, evaluation.compare_at_shares]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
