"""Two days and a rollback, executed by a real Airflow with real spark-submit on a tiny world."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from jobs.refresh import STAGES
from pipelines.cli.main import main as dr
from pipelines.spark.session import delta_jars
from pipelines.storage.releases import learned_intervals, list_releases
from pipelines.storage.workdir import Workdir

InAirflow = Callable[..., Any]
CONF = Path(__file__).parents[2] / "conf" / "spark" / "local.conf"
SPARK = {  # for JVMs that are soon gone: little is compiled, by Spark or by the JVM
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:MetaspaceSize=256m -XX:+UseSerialGC"
    " -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote",
    "spark.sql.shuffle.partitions": "1",
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.databricks.delta.snapshotPartitions": "1",
}
WORLD = """\
name: tiny
spark: {master: "local[1]", conf: SPARK}
dataset: {format: synthetic, synthetic: {num_users: 150, num_items: 120, mean_events: 40, num_days: 4}}
preprocess: {min_events: 4, cumulative: true}
split: {num_test: 12, num_validation: 8, min_events: 4}
samples: {positions: 3, targets: 3, num_blocks: 2}
encoder: {dim: 16}
structure: {hidden: 8}
training: {num_processes: 1, batch_rows: 32}
mixed_targets: {draws: 2, best_items: 40}
budget: {candidates: 20, beam: 4}
paths: {paths_per_item: 1}
penalty: {corrections: 0}
em: {rounds: 1, warm_up_epochs: 1, e_step_epochs: 1, final_epochs: 1}
refresh: {joint_epochs: 1, final_epochs: 1}
health: {max_largest_share: 1.0, min_normalized_entropy: 0.0}
gates: {min_users: 5, max_recall_loss: 1.0, min_rows_share: 0.0, max_rows_share: 100.0}
serving: {k: 5, beam: 4, history_length: 12}
evaluation: {controls: false, bootstrap: 100}
"""


def test_two_days_and_a_rollback(in_airflow: InAirflow, spark: SparkSession, tmp_path: Path) -> None:
    config, workdir, properties = tmp_path / "tiny.yaml", tmp_path / "W", tmp_path / "spark.conf"
    config.write_text(WORLD.replace("SPARK", json.dumps(SPARK)))
    cached = delta_jars()[0].parent
    jars = [
        str(jar) for name in ("delta-spark", "delta-storage", "antlr4-runtime") for jar in cached.glob(f"*{name}*.jar")
    ]
    own = SPARK | {"spark.jars": ",".join(jars)}
    lines = [line for line in CONF.read_text().splitlines() if line.split(" ")[0] not in (*own, "spark.jars.packages")]
    properties.write_text("\n".join([*lines, *(f"{name} {value}" for name, value in own.items())]))
    day_one = [
        "run",
        "--config",
        str(config),
        "--workdir",
        str(workdir),
        "--start",
        "2024-01-01",
        "--end",
        "2024-01-03",
    ]
    assert dr(day_one) == 0

    runs = [
        ["deep_retrieval_daily_refresh", "2024-01-04T00:00:00+00:00", {}],
        ["deep_retrieval_daily_refresh", "2024-01-05T00:00:00+00:00", {}],
        ["deep_retrieval_rollback", "2024-01-05T00:00:00+00:00", {}],
    ]
    settings = {"config": str(config), "workdir": str(workdir), "spark_properties": str(properties)}
    options = {"start_date": "2024-01-03", "retries": "0"}
    done = in_airflow(
        "run_dags.py", json.dumps(runs), settings=settings, connection={"host": "local[1]"}, options=options
    )

    for day in done[:2]:
        assert day["state"] == "success"
        assert day["tasks"] == {stage: ["success", 1] for stage in (*STAGES, "mark_live")}
    assert done[2]["state"] == "success"
    days = ["daily-20240103T0000-20240104T0000", "daily-20240104T0000-20240105T0000"]
    assert [run["marked"] for run in done] == [*([{"run_id": name}] for name in days), [{}]]
    for name in days:
        record = json.loads((workdir / "runs" / f"{name}.json").read_text())
        assert (record["status"], record["exit_code"]) == ("done", 0)
        assert [stage["name"] for stage in record["stages"]] == list(STAGES)
        print(name, {stage["name"]: stage["seconds"] for stage in record["stages"]})
    rows = sorted(list_releases(Workdir(str(workdir))), key=lambda row: row.created_at)
    assert [row.status for row in rows] == ["retired", "live", "retired"], "the second day was rolled back to the first"
    assert [row.release_id for row in rows[1:]] == [f"{name}-1" for name in days]
    assert rows[1].parent_release == rows[0].release_id
    assert rows[2].parent_release == rows[1].release_id
    learned = [f"2024-01-0{day}T00:00:00Z/2024-01-0{day + 1}T00:00:00Z" for day in (3, 4)]
    assert learned_intervals(rows, rows[2]) == {"2024-01-01T00:00:00Z/2024-01-03T00:00:00Z", *learned}
