"""A proposed configuration as a YAML file with comments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from pipelines.cli.proposal import Proposal

WIDTH = 120


def render(proposal: Proposal, heading: list[str]) -> tuple[str, dict[str, int]]:
    """Return the file's text, and the number of the line of every key.

    Args:
        proposal: the configuration.
        heading: lines of comment above it.
    """
    lines, places = [f"# {line}".rstrip() for line in heading], dict[str, int]()
    for key, line in _lines(proposal.tree, proposal.notes, ""):
        lines.append(line)
        places[key] = len(lines)
    return "\n".join(lines) + "\n", places


def line_of(setting: str, places: dict[str, int]) -> int | None:
    """Return the line at which a setting is, or the section to which it has to be added; None where it is no setting."""
    key = setting.partition(":")[0].split(" ")[0].rstrip(",")
    while key not in places and "." in key:
        key = key.rpartition(".")[0]
    return places.get(key)


def _lines(tree: dict[str, Any], notes: dict[str, str], prefix: str) -> Iterator[tuple[str, str]]:
    indent = "  " * prefix.count(".")
    for name, value in tree.items():
        key = f"{prefix}{name}"
        note = notes.get(key, "")
        if isinstance(value, dict) and key not in notes:
            yield key, f"{indent}{name}:"
            yield from _lines(value, notes, f"{key}.")
            continue
        text = (
            yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
            .removesuffix("\n...\n")
            .strip()
        )
        line = f"{indent}{name}: {text}"
        yield key, f"{line}  # {note}" if note else line
