"""``dr doctor``: what this machine has of what a run needs, and how to mend what is missing."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dr_core.errors import ConfigError
from dr_core.learning.budget import choose_structure, needs_costs
from dr_core.paths.penalty import derive_alpha
from pipelines.cli.check import Check
from pipelines.cli.environment import (
    REINSTALL,
    check_java,
    check_packages,
    check_python,
    check_settings_from_outside,
    check_spark_home,
    check_user,
    check_worker_python,
    check_working_folder,
)
from pipelines.config.load import load_config
from pipelines.config.run import RunConfig
from pipelines.spark.environment import require_scratch, scratch_folders

SMALLEST_DISK = 5.0
SMALLEST_MEMORY = 6.0
GIB = 2**30


def examine(config: str | None = None, items: int | None = None, overrides: list[str] | None = None) -> list[Check]:
    """Look at everything a run needs; really start Spark and write and read a Delta table.

    Args:
        config: YAML file of the run that is planned; adds what layers and alpha it would start from.
        items: V to assume with ``config``; default: what the synthetic data set would generate.
        overrides: ``a.b=value`` texts on top of ``config``.

    Raises:
        ConfigError: ``config`` or an override is wrong, or ``items`` or an override comes without ``config``.
    """
    if config is None and (items or overrides):
        raise ConfigError("--items and --set say something about a configuration: name it with --config C")
    chosen = load_config(config, overrides) if config else None
    master = (chosen.spark.master if chosen else None) or "local"
    java = check_java()
    checks = [
        check_python(),
        java,
        *check_packages(),
        check_user(),
        check_worker_python(master),
        check_spark_home(master),
        check_settings_from_outside(),
        check_working_folder(),
        check_disk(),
        check_cores(chosen),
        check_memory(),
        check_torch(),
        check_spark(chosen) if java.ok else Check("spark", False, "not tried with this Java", "mend Java first"),
    ]
    if chosen is not None:
        checks.append(check_structure(chosen, items))
    return checks


def check_disk(folder: str = ".") -> Check:
    """Free space where work folders usually lie, and where Spark shuffles."""
    try:
        require_scratch()
    except ConfigError as error:
        return Check("disk", False, *str(error).split(": ", 1))
    free = {place: shutil.disk_usage(place).free / GIB for place in (str(Path(folder).resolve()), *scratch_folders())}
    return Check(
        "disk",
        min(free.values()) >= SMALLEST_DISK,
        ", ".join(f"{space:.0f} GiB free in {place}" for place, space in free.items()),
        f"free {SMALLEST_DISK:.0f} GiB, use another --workdir, or point SPARK_LOCAL_DIRS and TMPDIR at a larger disk",
    )


def check_cores(config: RunConfig | None) -> Check:
    """Cores this process may use, against what training asks for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if config is None or not config.training.local_processes:
        return Check("cores", True, str(cores))
    training = config.training
    asked = training.num_processes * training.threads_per_process
    return Check(
        "cores",
        asked <= cores,
        f"{cores}; training uses {training.num_processes} x {training.threads_per_process}",
        f"--set training.num_processes={max(1, cores // training.threads_per_process)}",
    )


def check_memory() -> Check:
    """Memory of this machine or container: 4 GiB for the Spark driver, the rest for Python."""
    import psutil

    total = min([psutil.virtual_memory().total, *_container_limits()]) / GIB
    available = psutil.virtual_memory().available / GIB
    return Check(
        "memory",
        total >= SMALLEST_MEMORY,
        f"{total:.1f} GiB, {available:.1f} GiB of the machine's available",
        f"{SMALLEST_MEMORY:.0f} GiB are needed; for small data, less with `--set spark.conf={{spark.driver.memory: 2g}}`",
    )


def check_torch() -> Check:
    """Torch, and where it would compute."""
    try:
        import torch

        torch.zeros(2, 2) @ torch.zeros(2, 2)
    except (ImportError, RuntimeError, OSError) as error:
        return Check("device", False, f"torch does not work: {error}", REINSTALL)
    has_gpu = torch.cuda.is_available()
    return Check("device", True, f"cuda, {torch.cuda.get_device_name(0)}" if has_gpu else "cpu")


def check_spark(config: RunConfig | None) -> Check:
    """Start a session with the run's own settings, write a Delta table into a temporary folder and read it back."""
    from pipelines.spark.session import delta_jars, spark_session

    settings = {"master": config.spark.master, "conf": config.spark.conf} if config else {"master": "local[1]"}
    jars = delta_jars()
    source = f"JAR in {jars[0].parent}" if jars else "JAR fetched from Maven"
    try:
        with spark_session("dr doctor", **settings) as spark, tempfile.TemporaryDirectory() as folder:
            spark.range(3).coalesce(1).write.format("delta").save(f"{folder}/table")
            rows = len(spark.read.format("delta").load(f"{folder}/table").collect())
            found = f"Spark {spark.version} on {spark.sparkContext.master}, Delta {_version('delta-spark')} ({source})"
    except Exception as error:  # whatever the JVM or its libraries throw is what is to be shown
        return Check("spark", False, _first_line(error), _spark_mend(bool(jars)))
    return Check("spark", rows == 3, found if rows == 3 else f"{rows} of 3 rows came back", _spark_mend(bool(jars)))


def check_structure(config: RunConfig, items: int | None) -> Check:
    """Layers and alpha that a run of this configuration would start from, and why."""
    if items is None and config.dataset.format == "synthetic" and config.dataset.path is None:
        items = config.dataset.synthetic.num_items
    if items is None:
        return Check(
            "structure", True, "the number of paths follows from the number of items: say how many with --items V"
        )
    num_paths = config.paths.paths_per_item
    try:
        choice = choose_structure(config, items, num_paths)
    except ValueError as error:
        return Check("structure", False, str(error), "choose another paths.num_nodes, paths.num_layers or paths.nodes")
    if config.penalty.alpha == "auto":
        alpha = f"alpha starts from {derive_alpha(1.0, choice.items_per_visited_path):.3g} x mean events an item"
    else:
        alpha = f"alpha={config.penalty.alpha:g}: as configured"
    shape = f"{choice.space}, J={num_paths} for {items} items"
    lines = [shape, *choice.reasons]
    if needs_costs(config) and items <= config.paths.kmeans_sample:
        lines.append(
            "an estimate: after its warm-up a run measures how candidates and nodes depend on the number of paths"
        )
    lines.append(alpha)
    return Check("structure", True, "\n".join(lines))


def _spark_mend(has_jars: bool) -> str:
    if has_jars:
        return "the file that it names holds Spark's own lines"
    return (
        f"fetch Delta once on a machine with a network (`dr doctor` does it), or put"
        f" delta-spark_2.13-{_version('delta-spark')}.jar and delta-storage on this one and name them in spark.jars:"
        " conf/spark/local.conf shows how"
    )


def _container_limits() -> list[int]:
    texts = []
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            texts.append(Path(file).read_text().strip())
        except OSError:
            continue
    return [int(text) for text in texts if text.isdigit()]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
