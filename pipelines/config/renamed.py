"""Keys that had other names: what an older YAML file or an older run's record still calls them."""

from __future__ import annotations

import copy
from typing import Any

RENAMED = {
    "samples.history_length": "serving.history_length",
    "preprocess.history_length": "serving.history_length",
    "evaluation.beam": "serving.beam",
    "evaluation.filter_history": "serving.filter_history",
    "evaluation.candidates_per_item": "serving.candidates",
}
"""Former name by today's; the first of two former names wins."""


def renamed_keys(tree: dict[str, Any], *, is_first_form: bool = False) -> tuple[dict[str, Any], list[str]]:
    """Return a configuration tree under today's names, and a line for each key that had another one.

    When any key had its former name, or ``is_first_form``, the list length that is served and by which epochs are judged
    is the first of ``evaluation.k``, as it was then.
    """
    tree, notes = copy.deepcopy(tree), []
    found = {old: _pop(tree, old) for old in RENAMED if _get(tree, old) is not None}
    if not found and not is_first_form:
        return tree, notes
    lengths = _get(tree, "evaluation.k")
    first = lengths[0] if isinstance(lengths, list | tuple) and lengths else None
    if first is not None:
        _put(tree, "serving.k", first)
        _put(tree, "training.validation_k", first)
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
