"""Synthetic watch logs with planted interests: what a user likes follows from a topic tree that no K^D mirrors.

A tree with 3 to 7 children a node and two or three levels carries the items; each user likes a few of its leaves,
drifts slowly to others, and inside a leaf picks items by a Zipf law. A user's later events therefore follow from the
earlier ones, while a list of the most popular items knows nothing of them.
"""

from __future__ import annotations

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from dr_core.config import Config

LOGS_FILE = "logs.parquet"
CATALOGUE_FILE = "catalogue.parquet"
_SECONDS_PER_DAY = 86_400


class SyntheticConfig(Config):
    """What to plant. The same configuration gives the same tables, byte for byte of content."""

    num_users: int = Field(default=4_000, ge=2)
    """Users. Events grow in proportion."""
    num_items: int = Field(default=3_000, ge=50)
    """Items of the catalogue; a few never get an event."""
    mean_events: float = Field(default=52.0, ge=4)
    """Mean events a user (log-normal, at least 4); repeated picks are dropped, so slightly fewer come out."""
    num_days: int = Field(default=30, ge=1)
    """Days that the log spans."""
    start_timestamp: int = Field(default=1_704_067_200, ge=0)
    """First moment of the log, Unix seconds (2024-01-01 UTC)."""
    interests: int = Field(default=3, ge=1)
    """Leaf topics that a user likes. More make users harder to tell apart."""
    drift: float = Field(default=0.25, ge=0, le=1)
    """Share of a user's interests replaced by the end of the log; 0 keeps tastes fixed."""
    sibling_share: float = Field(default=0.12, ge=0, le=1)
    """Share of events that go to a sibling leaf of the liked one: what makes the tree, not just its leaves, worth
    learning."""
    noise: float = Field(default=0.12, ge=0, le=1)
    """Share of events drawn from overall popularity. More noise lowers what any method can reach."""
    zipf_exponent: float = Field(default=0.9, ge=0)
    """Exponent of the popularity law inside a leaf; higher concentrates events on fewer items."""
    new_item_share: float = Field(default=0.1, ge=0, le=1)
    """Share of items that first appear during the log, evenly over its days."""
    retired_share: float = Field(default=0.01, ge=0, le=1)
    """Share of items that are withdrawn during the log (inactive in the catalogue)."""
    seed: int = Field(default=0, ge=0)
    """Seed of every draw."""


def generate(config: SyntheticConfig) -> tuple[pa.Table, pa.Table]:
    """Draw the logs and the catalogue.

    Returns:
        ``logs`` in time order: user_id int64, item_id int64, timestamp int64 (Unix seconds), watch_seconds float32,
        watch_ratio float32 in (0, 1]; ``catalogue``: item_id int64, title, category (the leaf's place in the tree,
        such as ``2/0/4``), creator string, active bool, first_seen int64 (Unix seconds).
    """
    rng = np.random.default_rng(config.seed)
    leaf_names, leaf_parents = _draw_topic_tree(rng, max_leaves=max(4, config.num_items // 25))
    catalogue = _Catalogue(rng, config, num_leaves=len(leaf_names))
    logs = _draw_events(rng, config, catalogue, leaf_parents)
    return logs, catalogue.table(config, leaf_names)


def write(config: SyntheticConfig, folder: str) -> tuple[str, str]:
    """Write ``logs.parquet`` and ``catalogue.parquet`` below a folder (a path or URI); return their two addresses."""
    filesystem, root = fsspec.core.url_to_fs(folder)
    filesystem.makedirs(root, exist_ok=True)
    for table, name in zip(generate(config), (LOGS_FILE, CATALOGUE_FILE), strict=True):
        with filesystem.open(f"{root.rstrip('/')}/{name}", "wb") as file:
            pq.write_table(table, file, compression="zstd")
    return f"{folder.rstrip('/')}/{LOGS_FILE}", f"{folder.rstrip('/')}/{CATALOGUE_FILE}"


def _draw_topic_tree(rng: np.random.Generator, max_leaves: int) -> tuple[list[str], NDArray[np.int64]]:
    """Return the leaves' names and, for each, an id of its parent: 3 to 7 children a node, two or three levels."""
    names: list[str] = []
    parents: list[int] = []
    next_parent = 0
    for top in range(int(rng.integers(3, 8))):
        for middle in range(int(rng.integers(3, 8))):
            is_split = rng.random() < 0.55
            children = [f"{top}/{middle}/{leaf}" for leaf in range(int(rng.integers(3, 8)))] if is_split else []
            names += children or [f"{top}/{middle}"]
            parents += [next_parent + 1 + middle] * len(children) if children else [next_parent]
        next_parent += 8
    return names[:max_leaves], np.asarray(parents[:max_leaves], dtype=np.int64)


class _Catalogue:
    """Items placed in leaves, with a popularity law inside each leaf. Items of one leaf are consecutive."""

    def __init__(self, rng: np.random.Generator, config: SyntheticConfig, num_leaves: int) -> None:
        num_items = config.num_items
        share = rng.dirichlet(np.full(num_leaves, 3.0))
        sizes = 1 + rng.multinomial(num_items - num_leaves, share)
        self.leaf = np.repeat(np.arange(num_leaves), sizes)
        first = np.cumsum(sizes) - sizes
        rank = np.arange(num_items) - first[self.leaf]
        popularity = (1.0 + rank) ** -config.zipf_exponent
        leaf_total = np.bincount(self.leaf, weights=popularity)
        within = np.cumsum(popularity) - (np.cumsum(leaf_total) - leaf_total)[self.leaf]
        self.cumulative = self.leaf + within / leaf_total[self.leaf]  # leaf l owns the interval (l, l + 1]
        self.leaf_weight = leaf_total * rng.gamma(2.0, 1.0, num_leaves)
        self.leaf_weight /= self.leaf_weight.sum()
        self.item_id = rng.permutation(num_items) + 1
        span = config.num_days * _SECONDS_PER_DAY
        is_new = rng.random(num_items) < config.new_item_share
        age = np.where(is_new, rng.integers(0, span, num_items), -rng.integers(1, 365 * _SECONDS_PER_DAY, num_items))
        self.first_seen = np.maximum(config.start_timestamp + age, 0)
        self.active = rng.random(num_items) >= config.retired_share
        last = config.start_timestamp + rng.integers(0, span, num_items)
        self.last_seen = np.where(self.active, np.iinfo(np.int64).max, last)
        creators_of_leaf = np.maximum(1, sizes // 10)
        first_creator = np.cumsum(creators_of_leaf) - creators_of_leaf
        self.creator = first_creator[self.leaf] + (rng.random(num_items) ** 2 * creators_of_leaf[self.leaf]).astype(int)
        self.duration = np.exp(rng.normal(3.6, 0.6, num_items)).clip(5, 600)

    def draw(self, rng: np.random.Generator, leaf: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pick an item index from each given leaf by the leaf's popularity law."""
        picked = np.searchsorted(self.cumulative, leaf + rng.random(len(leaf)))
        return np.asarray(np.minimum(picked, len(self.leaf) - 1))

    def table(self, config: SyntheticConfig, leaf_names: list[str]) -> pa.Table:
        """Return the catalogue, ordered by item id."""
        order = np.argsort(self.item_id)
        category = np.asarray(leaf_names, dtype=object)[self.leaf]
        return pa.table(
            {
                "item_id": self.item_id[order].astype(np.int64),
                "title": [f"Video {i} on topic {c}" for i, c in zip(self.item_id[order], category[order], strict=True)],
                "category": pa.array(category[order], pa.string()),
                "creator": [f"creator {c}" for c in self.creator[order]],
                "active": self.active[order],
                "first_seen": self.first_seen[order].astype(np.int64),
            }
        )


def _draw_events(
    rng: np.random.Generator, config: SyntheticConfig, catalogue: _Catalogue, leaf_parents: NDArray[np.int64]
) -> pa.Table:
    """Draw every user's events at once, then drop picks that are impossible (not yet or no longer there) or
    repeated."""
    num_users, num_leaves = config.num_users, len(leaf_parents)
    sigma = 0.7
    wanted = np.exp(rng.normal(np.log(config.mean_events) - sigma**2 / 2, sigma, num_users))
    num_drawn = np.maximum(4, np.round(wanted * 1.7)).astype(int)
    user = np.repeat(np.arange(num_users), num_drawn)
    num_events = len(user)

    early = rng.choice(num_leaves, size=(num_users, config.interests), p=catalogue.leaf_weight)
    late = rng.choice(num_leaves, size=(num_users, config.interests), p=catalogue.leaf_weight)
    late = np.where(rng.random(late.shape) < config.drift, late, early)
    taste = rng.dirichlet(np.full(config.interests, 1.5), size=num_users)

    day = rng.random(num_events) * config.num_days
    hour = (rng.normal(20.0, 4.0, num_events) % 24.0) / 24.0  # evenings are busiest
    seconds = ((np.floor(day) + hour) * _SECONDS_PER_DAY).astype(np.int64)
    timestamp = config.start_timestamp + np.minimum(seconds, config.num_days * _SECONDS_PER_DAY - 1)

    slot = (rng.random(num_events)[:, None] > np.cumsum(taste, axis=1)[user]).sum(axis=1).clip(max=config.interests - 1)
    is_late = rng.random(num_events) < seconds / (config.num_days * _SECONDS_PER_DAY)
    leaf = np.where(is_late, late[user, slot], early[user, slot])
    leaf = np.where(rng.random(num_events) < config.sibling_share, _draw_siblings(rng, leaf, leaf_parents), leaf)
    is_noise = rng.random(num_events) < config.noise
    leaf = np.where(is_noise, rng.choice(num_leaves, size=num_events, p=catalogue.leaf_weight), leaf)
    item = catalogue.draw(rng, leaf)

    appeal = np.where(is_noise, 1.3, 3.5)
    ratio = np.clip(rng.beta(appeal, 2.0), 0.01, 1.0)
    order = np.lexsort((item, user, timestamp))
    possible = (timestamp >= catalogue.first_seen[item]) & (timestamp <= catalogue.last_seen[item])
    order = order[possible[order]]
    _, first = np.unique(user[order] * np.int64(config.num_items) + item[order], return_index=True)
    order = order[np.sort(first)]
    return pa.table(
        {
            "user_id": (user[order] + 1).astype(np.int64),
            "item_id": catalogue.item_id[item[order]].astype(np.int64),
            "timestamp": timestamp[order],
            "watch_seconds": (ratio * catalogue.duration[item])[order].astype(np.float32),
            "watch_ratio": ratio[order].astype(np.float32),
        }
    )


def _draw_siblings(
    rng: np.random.Generator, leaf: NDArray[np.int64], leaf_parents: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Replace each leaf by a random leaf of the same parent (itself included). Leaves of one parent are not always
    adjacent."""
    by_parent = np.argsort(leaf_parents, kind="stable")
    sorted_parents = leaf_parents[by_parent]
    start = np.searchsorted(sorted_parents, leaf_parents[leaf], side="left")
    end = np.searchsorted(sorted_parents, leaf_parents[leaf], side="right")
    return np.asarray(by_parent[start + (rng.random(len(leaf)) * (end - start)).astype(int)])
