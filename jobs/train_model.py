"""E-step: Torch DDP over Petastorm, with the mapping fixed.

--round warm_up: encoder and softmax alone, before there are paths; t: the model for the mapping before M-step t;
final: the model that is released, for the last mapping.
"""

import sys

import dr_start  # noqa: F401
from pipelines.cli.job import stage_job

main = stage_job("train_model", __doc__)

if __name__ == "__main__":
    sys.exit(main())
