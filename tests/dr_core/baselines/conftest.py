"""A small world in which what users meet next follows from what they met."""

import numpy as np
import pytest

from dr_core.baselines.base import Events
from dr_core.item_lists import ItemLists

NUM_ITEMS, NUM_TOPICS = 120, 6


def draw_histories(num_users: int, seed: int, length: int = 20) -> tuple[list[np.ndarray], np.ndarray]:
    """Users of one topic, which most of their items are of; popular items are met by everybody."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, NUM_TOPICS, num_users)
    by_topic = np.arange(NUM_ITEMS).reshape(-1, NUM_TOPICS).T
    rows = []
    for user in range(num_users):
        own = rng.choice(by_topic[topic[user]], length - 4, replace=False)
        rows.append(rng.permutation(np.unique(np.r_[own, np.minimum(rng.geometric(0.1, 4) - 1, NUM_ITEMS - 1)])))
    return rows, topic


@pytest.fixture(scope="session")
def events() -> Events:
    return Events(ItemLists.from_rows(draw_histories(600, 0)[0]), NUM_ITEMS)


@pytest.fixture(scope="session")
def strangers() -> tuple[ItemLists, ItemLists]:
    """Histories of users outside of the training, and what they met next."""
    rows, _ = draw_histories(80, 1)
    return ItemLists.from_rows([row[:10] for row in rows]), ItemLists.from_rows([row[10:] for row in rows])
