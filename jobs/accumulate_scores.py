"""Scores s[v, c] and weights N_v of one round, under the model trained on the mapping before it."""

import sys

import dr_start  # noqa: F401
from pipelines.cli.job import stage_job

main = stage_job("accumulate_scores", __doc__)

if __name__ == "__main__":
    sys.exit(main())
