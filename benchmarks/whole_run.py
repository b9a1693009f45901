"""Where the seconds of a whole run go: ``python -m benchmarks.whole_run``. One JSON line.

A generated world of MovieLens-20M's size (130,000 users, 20,700 items, about 10 million events), and of ``--sizes`` times
it, through ``dr run`` in a process of its own. One EM round is one epoch, scores, M-step and index, with 8 positions x 8
targets a user; the run has one warm-up epoch and one round, and no controls.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
USERS, ITEMS, MEAN_EVENTS = 130_000, 20_700, 80
ROUND = ("e_step_1", "scores_1", "assign_1", "index")
CONFIG = """\
name: ml20m_size
dataset:
  format: synthetic
  synthetic: {{num_users: {users}, num_items: {items}, mean_events: {mean_events}, num_days: 365}}
preprocess: {{min_events: 10, partition_unit: month}}
split: {{kind: halves, num_test: 1000, num_validation: 1000}}
samples: {{positions: 8, targets: 8, num_blocks: 64}}
reranker: {{loss: sampled, num_negatives: 4096}}
structure: {{hidden: 128}}
budget: {{candidate_share: 0.005, beam: 12}}
em: {{warm_up_epochs: 1, e_step_epochs: 1, final_epochs: 1, rounds: 1}}
evaluation: {{k: [10], controls: false, random_start_rounds: 0, other_paths_per_item: [], curve_shares: [0.005]}}
spark: {{conf: {{spark.driver.memory: 6g, spark.sql.shuffle.partitions: "8"}}}}
"""


def peak_memory(process: subprocess.Popen[Any], ends: threading.Event, peak: list[float]) -> None:
    """Note the largest sum of resident sizes of a process and all below it, in GiB."""
    while not ends.wait(1.0):
        total = 0
        try:
            for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                total += each.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        peak[0] = max(peak[0], total / 2**30)


def run(name: str, config: str, folder: Path) -> dict[str, Any]:
    """Run one configuration; return its data, its seconds by stage and its memory."""
    file, workdir = folder / f"{name}.yaml", folder / f"W-{name}"
    file.write_text(config)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "pipelines.cli.main",
        "run",
        "--config",
        str(file),
        "--workdir",
        str(workdir),
        "--json",
    ]
    started, peak, ends = time.monotonic(), [0.0], threading.Event()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    watch = threading.Thread(target=peak_memory, args=(process, ends, peak))
    watch.start()
    document, _ = process.communicate()
    ends.set()
    watch.join()
    if process.returncode != 0:
        raise SystemExit(f"dr run ended with {process.returncode}; its log is above, its work folder {workdir}")
    summary = json.loads(document)
    shutil.rmtree(workdir)
    return {
        "world": name,
        "users": summary["data"]["users"],
        "items": summary["data"]["items"],
        "events": summary["data"]["events"],
        "structure": {name: summary["structure"][name] for name in ("K", "D", "J")},
        "seconds": {stage["name"]: round(stage["seconds"], 1) for stage in summary["stages"]},
        "minutes": round((time.monotonic() - started) / 60, 1),
        "peak_gib": round(peak[0], 2),
        "largest_path": summary["health"]["largest_path"],
    }


def main() -> int:
    """Run all sizes and print one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_run", description=__doc__)
    parser.add_argument("--sizes", type=float, nargs="*", default=[0.5, 1.0, 2.0], help="times 130,000 users")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for size in arguments.sizes:
            config = CONFIG.format(users=int(USERS * size), items=ITEMS, mean_events=MEAN_EVENTS)
            row = run(f"{size}x", config, Path(folder))
            rows.append(row | {"em_round_seconds": round(sum(row["seconds"][name] for name in ROUND), 1)})
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print(json.dumps({"benchmark": "whole_run", "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
