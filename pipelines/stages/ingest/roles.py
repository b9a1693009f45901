"""The users who are held out, interval by interval."""

from __future__ import annotations

from collections import Counter

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.errors import ConfigError
from pipelines.stages.ingest.interval import Interval
from pipelines.stages.ingest.split import SplitConfig, draw_roles, evaluation_histories, extend_roles
from pipelines.stages.ingest.state import IngestState
from pipelines.storage.faults import reach
from pipelines.storage.schemas import SCHEMAS
from pipelines.storage.workdir import Workdir


def held_out_roles(
    spark: SparkSession,
    workdir: Workdir,
    users: DataFrame,
    config: SplitConfig,
    state: IngestState,
    interval: Interval | None,
    seed: int,
) -> DataFrame:
    """Return user, role of the held-out users, and is_new: whether the table does not hold them yet.

    Raises:
        ConfigError: fewer users than asked for can be held out.
    """
    has_roles = interval is not None and workdir.has_table(spark, "evaluation_users")
    old = workdir.read(spark, "evaluation_users") if has_roles else None
    if state.known_users is None or old is None:
        roles = draw_roles(users, config, seed=seed)
        if old is not None:
            roles = roles.unionByName(old.join(users.select("user"), on="user", how="left_anti"))
        return roles.withColumn("is_new", F.lit(True))
    old = old.withColumn("is_new", F.lit(False))
    if state.is_older:
        return old
    new = users.join(state.known_users, on="user", how="left_anti").join(old.select("user"), on="user", how="left_anti")
    return old.unionByName(extend_roles(new, old, config, seed=seed).withColumn("is_new", F.lit(True)))


def count_roles(users: DataFrame, roles: DataFrame) -> tuple[Counter[str], int]:
    """Return the users of the interval by role, ``train`` being those that have none, and how many of them get theirs now.

    Raises:
        ConfigError: nobody is left to train on.
    """
    per_role: Counter[str] = Counter()
    num_new = 0
    for row in users.join(F.broadcast(roles), on="user", how="left").groupBy("role", "is_new").count().collect():
        per_role[row["role"] or "train"] += row["count"]
        num_new += row["count"] if row["is_new"] else 0
    if not per_role["train"]:
        raise ConfigError("every user is held out (split.num_test, split.num_validation): none is left to train on")
    return per_role, num_new


def write_split(
    spark: SparkSession,
    workdir: Workdir,
    roles: DataFrame,
    num_new: int,
    config: SplitConfig,
    state: IngestState,
    interval: Interval | None,
) -> None:
    """Write the held-out users; with the first interval, cut their events into question and answer.

    Later intervals add the users that get a role with them, and commit nothing where none does.
    """
    if state.is_older:
        return
    columns = list(SCHEMAS["evaluation_users"])
    if not state.is_first and workdir.has_table(spark, "evaluation_users"):
        if num_new:
            workdir.append(roles.where("is_new").select(*columns), "evaluation_users")
        reach("roles:after")
        return
    workdir.write(roles.select(*columns), "evaluation_users")
    if not state.is_first:
        return
    roles = workdir.read(spark, "evaluation_users")
    events = workdir.read(spark, "interactions")
    if interval is not None:
        events = events.where(F.col("source_interval") == interval.label)
    workdir.write(evaluation_histories(events, roles, config), "evaluation_histories")
