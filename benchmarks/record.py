"""Run a benchmark and keep its JSON lines: ``python -m benchmarks.record scores --targets 1000000``.

Every line goes to ``benchmarks/results/<its benchmark>.json``, or ``<its benchmark>_items_20000000.json`` after ``--items 20000000``, with the command, the
machine, the versions and the date.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "deep-retrieval",
    "numpy",
    "numba",
    "torch",
    "pyspark",
    "delta-spark",
    "petastorm",
    "faiss-cpu",
    "usearch",
    "rabitqlib",
)


def machine() -> dict[str, Any]:
    """Describe this machine, without its name."""
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())  # fmt: skip
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
    }


def variant(arguments: list[str]) -> str:
    """Return what sets apart runs of one benchmark: its arguments, without the picture."""
    words = iter(arguments)
    kept = [word.removeprefix("--") for word in words if word != "--picture" or not next(words)]
    return "".join(f"_{word}" for word in kept)


def main() -> int:
    """Run, show and keep."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0
    name, *arguments = sys.argv[1:]
    about = {
        "command": " ".join(["python -m", f"benchmarks.{name}", *arguments]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine(),
        "versions": {package: version(package) for package in PACKAGES},
    }
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    RESULTS.mkdir(exist_ok=True)
    for text in process.stdout:
        print(text, end="", flush=True)
        if text.startswith("{"):
            line = json.loads(text)
            kept = json.dumps({"line": line} | about, indent=1)
            (RESULTS / f"{line['benchmark']}{variant(arguments)}.json").write_text(kept + "\n")
    return process.wait()


if __name__ == "__main__":
    sys.exit(main())
