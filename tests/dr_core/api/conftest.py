"""Readers who each stay on one of four shelves, and a model fitted on them."""

import random

import pytest

from dr_core import DeepRetrieval

SHELF = 12
FAST = {
    "encoder": {"dim": 16, "dropout": 0.0},
    "serving": {"history_length": 8},
    "samples": {"positions": 4, "targets": 4},
    "training": {"batch_rows": 16},
    "em": {"warm_up_epochs": 8, "e_step_epochs": 3, "final_epochs": 4, "rounds": 1},
}


def readers(seed: int, number: int) -> list[list[str]]:
    draw = random.Random(seed)
    return [draw.sample([f"{shelf}{book}" for book in range(SHELF)], 8) for shelf in draw.choices("abcd", k=number)]


@pytest.fixture(scope="session")
def model() -> DeepRetrieval:
    return DeepRetrieval(k=4, seed=0, **FAST).fit(readers(0, 300))


def own_share(model: DeepRetrieval, histories: list[list[str]], **options: object) -> float:
    """Share of the recommended books that are of their reader's shelf."""
    found = model.recommend_all(histories, **options)
    books = [book[0] == history[0][0] for history, each in zip(histories, found, strict=True) for book in each.items]
    return sum(books) / len(books)
