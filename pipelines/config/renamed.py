"""Keys that had other names: what an older YAML file or an older run's record still calls them."""

from __future__ import annotations

import copy
from typing import Any

from dr_core.errors import ConfigError

FIRST_FORM = {
    "samples.history_length": "serving.history_length",
    "preprocess.history_length": "serving.history_length",
    "evaluation.beam": "serving.beam",
    "evaluation.filter_history": "serving.filter_history",
    "evaluation.candidates_per_item": "serving.candidates",
}
"""Former name by today's, from when the first of ``evaluation.k`` was served; the first of two former names wins."""
RENAMED = FIRST_FORM | {
    "paths.spare": "paths.path_length_slack",
    "mixed_targets.top": "mixed_targets.best_items",
    "mixed_targets.probes": "mixed_targets.probed_groups",
    "mixed_targets.head": "mixed_targets.always_scored",
    "evaluation.difference_shares": "evaluation.compare_at_shares",
}
"""Former name by today's, all of them."""
GONE = {"reranker.negatives": "popularity"}
"""Former settings that have one value left; a file may still say it."""


def renamed_keys(tree: dict[str, Any], *, is_first_form: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Return a configuration tree under today's names, and a line for each key that had another one.

    When a key has a name of :data:`FIRST_FORM`, or ``is_first_form``, the list length that is served and by which epochs
    are judged is the first of ``evaluation.k``, as it was then.

    Raises:
        ConfigError: a key is set to one value by its former name and to another by today's.
    """
    tree, notes = copy.deepcopy(tree), list[str]()
    for key, only in GONE.items():
        if _get(tree, key) == only:
            _pop(tree, key)
            notes.append(f"{key} is always {only!r} now")
    found = {old: _pop(tree, old) for old in RENAMED if _get(tree, old) is not None}
    for old, value in found.items():
        if _get(tree, RENAMED[old]) not in (None, value):
            raise ConfigError(
                f"{old}={value!r}: it is called {RENAMED[old]} now, which is set as well: set that one alone"
            )
    lengths = _get(tree, "evaluation.k")
    was_served = is_first_form or not FIRST_FORM.keys().isdisjoint(found)
    if was_served and isinstance(lengths, list | tuple) and lengths:
        _put(tree, "serving.k", lengths[0])
        _put(tree, "training.validation_k", lengths[0])
    if "evaluation.filter_history" in found:
        _put(tree, "training.validation_filtered", found["evaluation.filter_history"])
    for old, value in found.items():
        new = RENAMED[old]
        if old == "evaluation.candidates_per_item":
            if _get(tree, "serving.beam") not in (None, "auto") or not isinstance(value, int | float):
                continue
            value = max(1, round(value * (_get(tree, "serving.k") or 10)))
        _put(tree, new, value)
        notes.append(f"{old} is called {new} now")
    return tree, notes


def _get(tree: dict[str, Any], key: str) -> Any:
    section, name = key.split(".")
    return (tree.get(section) or {}).get(name) if isinstance(tree.get(section), dict | None) else None


def _pop(tree: dict[str, Any], key: str) -> Any:
    section, name = key.split(".")
    return tree[section].pop(name)


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a key unless it is set already."""
    section, name = key.split(".")
    if tree.get(section) is None:
        tree[section] = {}
    if isinstance(tree[section], dict):
        tree[section].setdefault(name, value)
