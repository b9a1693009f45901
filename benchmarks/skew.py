"""What one very popular item and one very busy user cost: ``python -m benchmarks.skew``. One JSON line.

The same number of events twice: as generated, and with one item in a tenth of all events and one user with 100,000. Both
go through ``dr run``; the line holds each stage's seconds and their ratio, and the memory of both.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.whole_run import run
from pipelines.datasets.synthetic import SyntheticConfig, generate

CONFIG = """\
name: skew
dataset: {{format: parquet, path: {logs}, columns: {{user: user_id, item: item_id, time: timestamp}}}}
preprocess: {{min_events: 5, partition_unit: month, duplicate_rows: keep}}
split: {{kind: halves, num_test: 300, num_validation: 300}}
samples: {{positions: 8, targets: 8, num_blocks: 16}}
structure: {{hidden: 64}}
reranker: {{loss: sampled, num_negatives: 2048}}
budget: {{candidate_share: 0.01, beam: 12}}
em: {{warm_up_epochs: 1, e_step_epochs: 1, final_epochs: 1, rounds: 1}}
evaluation: {{k: [10], controls: false, random_start_rounds: 0, other_paths_per_item: [], curve_shares: [0.01]}}
"""


def write(folder: Path, num_users: int, busy: int) -> dict[str, Path]:
    """Write both logs."""
    even, _ = generate(SyntheticConfig(num_users=num_users, num_items=8000, mean_events=40, num_days=90))
    rng = np.random.default_rng(0)
    items, users = even["item_id"].to_numpy().copy(), even["user_id"].to_numpy().copy()
    popular = np.bincount(items).argmax()
    items[rng.random(len(items)) < 0.1] = popular
    users[rng.choice(len(users), busy, replace=False)] = users.max() + 1
    skewed = pa.table({"user_id": users, "item_id": items, "timestamp": even["timestamp"]})
    files = {}
    for name, table in (("even", even.select(["user_id", "item_id", "timestamp"])), ("skewed", skewed)):
        files[name] = folder / f"{name}.parquet"
        pq.write_table(table, files[name])
    return files


def main() -> int:
    """Run both worlds and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.skew", description=__doc__)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--busy", type=int, default=100_000, help="events of the busy user (default: 100,000)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = write(Path(folder), arguments.users, arguments.busy)
        rows = {name: run(name, CONFIG.format(logs=file), Path(folder)) for name, file in files.items()}
    even, skewed = rows["even"]["seconds"], rows["skewed"]["seconds"]
    ratios = {name: round(skewed[name] / max(even[name], 0.1), 2) for name in even}
    print(json.dumps({"benchmark": "skew", "ratios": ratios, "rows": list(rows.values())}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
