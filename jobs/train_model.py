"""E-step: Torch DDP over Petastorm, with the mapping fixed.

--round warm_up: encoder and softmax alone, before there are paths; t: the model for the mapping before M-step t;
final: the model that is released, for the last mapping.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs._common import Step, run_job

if TYPE_CHECKING:
    from pipelines.flows.steps import DayOne


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job and return its exit code."""
    return run_job(
        "train_model",
        __doc__,
        lambda day, arguments: [step(day, arguments.round)],
        argv,
        rounds=("warm_up", "final"),
    )


def step(day: DayOne, number: int | str) -> Step:
    """Return the training stage of a round."""
    if number == "warm_up":
        return Step("warm_up", day.warm_up)
    mapping = day.config.em.rounds if number == "final" else int(number) - 1
    return Step(f"e_step_{number}", lambda: day.e_step(mapping))


if __name__ == "__main__":
    sys.exit(main())
