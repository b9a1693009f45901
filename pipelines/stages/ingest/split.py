"""Who is held out, and what of their history is the question and what the answer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from dr_core.config import Config
from dr_core.errors import ConfigError, InputError
from pipelines.storage.workdir import Workdir


class SplitConfig(Config):
    """The evaluation protocol. Held-out users are in no training sample, score, N_v or popularity count."""

    kind: Literal["halves", "leave_last_out"] = "halves"
    """``halves``: the first floor(n/2) events are the history, the others the truth. ``leave_last_out``: the last
    event is the truth."""
    users: Literal["hash", "column"] = "hash"
    """Where held-out users come from: all users, or only those with a row whose ``split`` column is 1 (later
    sessions)."""
    num_test: int = Field(default=600, ge=0)
    """Test users. 600 give a standard error of about 0.007 in precision at 10."""
    num_validation: int = Field(default=200, ge=0)
    """Validation users, disjoint from the test users; they choose rounds and hyper-parameters."""
    min_events: int = Field(default=10, ge=2)
    """Users with fewer kept events are not held out."""
    drop_rest: bool = True
    """With ``users: column``, whether the remaining users with split 1 are left out of training (role ``unused``)."""


def user_hash(seed: int) -> Column:
    """Return the hash (bigint) by which users are drawn."""
    return F.xxhash64(F.lit(seed).cast("bigint"), F.col("user"))


def draw_roles(users: DataFrame, config: SplitConfig, *, seed: int) -> DataFrame:
    """Draw the held-out users: of the eligible ones by ascending (hash, user), first the test users, then the
    validation users.

    Args:
        users: user, num_events, is_later (has a row with split 1).
        config: how many, and from whom.
        seed: another seed draws other users.

    Returns:
        user, role.

    Raises:
        ConfigError: fewer eligible users than asked for, or none left to train on.
        InputError: ``users: column`` and no row has split 1.
    """
    num_wanted = config.num_test + config.num_validation
    keyed = users.withColumn("key", F.struct(user_hash(seed).alias("hash"), F.col("user")))
    eligible = keyed.where(F.col("num_events") >= config.min_events)
    if config.users == "column":
        eligible = eligible.where("is_later")
    drawn = [row.key for row in eligible.orderBy("key").limit(num_wanted).select("key").collect()]
    if config.users == "column" and not drawn:
        raise InputError("split.users is 'column', but no user with enough events has a row whose split column is 1")
    if len(drawn) < num_wanted:
        raise ConfigError(_too_few(users, config, len(drawn)))
    bounds: dict[str, tuple[int, str] | None] = {
        role: (drawn[count - 1].hash, drawn[count - 1].user) if count > first else None
        for role, first, count in (("test", 0, config.num_test), ("validation", config.num_test, num_wanted))
    }
    return _roles_below(keyed.withColumn("is_eligible", _is_eligible(config)), bounds, config)


def extend_roles(users: DataFrame, roles: DataFrame, config: SplitConfig, *, seed: int) -> DataFrame:
    """Give roles to new users: those whose hash lies below the thresholds that the first draw left in ``roles``.

    Args:
        users: user, is_later; only users that were never seen before.
        roles: user, role; the table so far.
        config: the same as for the first draw.
        seed: the same as for the first draw.

    Returns:
        user, role of the new held-out users.
    """
    keyed = roles.withColumn("key", F.struct(user_hash(seed).alias("hash"), F.col("user")))
    found = keyed.where(F.col("role") != "unused").groupBy("role").agg(F.max("key").alias("key")).collect()
    bounds: dict[str, tuple[int, str] | None] = {row["role"]: (row["key"].hash, row["key"].user) for row in found}
    new = users.withColumn("key", F.struct(user_hash(seed).alias("hash"), F.col("user")))
    is_candidate = F.col("is_later") if config.users == "column" else F.lit(True)
    return _roles_below(new.withColumn("is_eligible", is_candidate), bounds, config)


def evaluation_histories(interactions: DataFrame, roles: DataFrame, config: SplitConfig) -> DataFrame:
    """Return user, role, history and truth (array<int>, oldest first) of the test and validation users with two
    events or more."""
    judged = F.broadcast(roles.where(F.col("role").isin("test", "validation")))
    events = (
        interactions.join(judged, on="user", how="inner")
        .groupBy("user", "role")
        .agg(F.sort_array(F.collect_list(F.struct("event_time", "event_order", "item_id"))).alias("events"))
        .where(F.size("events") >= 2)
    )
    num_events = F.size("events")
    cut = F.floor(num_events / 2) if config.kind == "halves" else num_events - 1
    items = F.col("events.item_id")
    return events.select(
        "user",
        "role",
        F.slice(items, F.lit(1), cut.cast("int")).alias("history"),
        F.slice(items, cut.cast("int") + 1, num_events).alias("truth"),
    )


def training_interactions(spark: SparkSession, workdir: Workdir) -> DataFrame:
    """Return the interactions of users that are not held out: the only ones that training, counts and popularity may
    use."""
    held_out = workdir.read(spark, "evaluation_users").select("user")
    return workdir.read(spark, "interactions").join(held_out, on="user", how="left_anti")


def _too_few(users: DataFrame, config: SplitConfig, eligible: int) -> str:
    """Return how many users there are to hold out, and which settings would do."""
    found = users.agg(F.count(F.lit(1)).alias("all"), F.count_if(F.col("num_events") >= 2).alias("two")).first()
    asked = f"split.num_test + split.num_validation = {config.num_test + config.num_validation}"
    text = f"{asked}, but only {eligible} users have at least {config.min_events} kept events (split.min_events)"
    if found is not None:
        text += f", of {found['all']} users in all"
    if eligible >= 10:
        return f"{text}: set split.num_test={eligible // 5} and split.num_validation={eligible // 10}"
    if found is not None and found["two"] > eligible:
        return f"{text}; {found['two']} have 2 or more: lower split.min_events, and ask for fewer users"
    return f"{text}: ask for fewer, or bring a longer log"


def _is_eligible(config: SplitConfig) -> Column:
    has_enough = F.col("num_events") >= config.min_events
    return has_enough & F.col("is_later") if config.users == "column" else has_enough


def _roles_below(keyed: DataFrame, bounds: dict[str, tuple[int, str] | None], config: SplitConfig) -> DataFrame:
    """Return user, role for eligible users whose key is at most a role's bound (test first), and the unused ones."""
    role = F.lit("unused") if config.users == "column" and config.drop_rest else F.lit(None)
    role = F.when(F.col("is_later"), role.cast("string")) if config.users == "column" else role.cast("string")
    for name in ("validation", "test"):
        bound = bounds.get(name)
        if bound is not None:
            key = F.struct(F.lit(bound[0]).cast("bigint").alias("hash"), F.lit(bound[1]).alias("user"))
            role = F.when(F.col("is_eligible") & (F.col("key") <= key), F.lit(name)).otherwise(role)
    return keyed.select("user", role.alias("role")).where(F.col("role").isNotNull())
