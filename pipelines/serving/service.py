"""``dr retrieve``: a release in this process, asked by item keys as they stand in the logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np

from dr_core.errors import InputError
from dr_core.learning.checkpoint import load_model
from dr_core.retrieval.retriever import Retriever
from pipelines.spark.session import spark_session
from pipelines.stages.structure.index import load_index
from pipelines.storage.releases import Release, find_release
from pipelines.storage.workdir import Workdir

USERS_PER_BLOCK = 256


@dataclass(frozen=True)
class Answer:
    """A document for machines, a text for people."""

    document: dict[str, Any]
    text: str


class Service:
    """A release, its retriever and its items' names."""

    def __init__(self, workdir_uri: str, release_id: str | None = None, beam: int | None = None) -> None:
        self.workdir = Workdir(workdir_uri)
        with spark_session("dr retrieve") as spark:
            self.release: Release = find_release(self.workdir, release_id)
            items = self.workdir.read(spark, "items").select("item_id", "item_key", "title", "category").toPandas()
        self.id_of = dict(zip(items["item_key"], items["item_id"].astype(int), strict=True))
        self.names = items.set_index("item_id").to_dict("index")
        name = self.release.release_id
        serving = json.loads(self.workdir.read_text("models", name, "serving.json"))
        self.retriever = Retriever(
            load_model(self.workdir.filesystem, self.workdir.path("models", name)),
            load_index(self.workdir, name),
            beam=beam or int(serving["beam"]),
            max_length=int(serving["history_length"]),
            release_of_model=name,
            release_of_index=serving["release_id"],
        )

    def ids(self, keys: Sequence[str]) -> tuple[list[int], list[str]]:
        """Return the ids of known keys and the keys that are unknown."""
        return [self.id_of[key] for key in keys if key in self.id_of], [key for key in keys if key not in self.id_of]

    def item(self, item_id: int) -> dict[str, Any]:
        """Return an item's key, and its title and category when there are any."""
        row = self.names[item_id]
        return {"item_key": row["item_key"], "title": row["title"], "category": row["category"]}


def retrieve_history(
    workdir_uri: str,
    history: Sequence[str],
    *,
    k: int,
    beam: int | None,
    release_id: str | None,
    keep_history: bool,
    blocked: Sequence[str],
    explain: bool,
) -> Answer:
    """Return the top k items for one history of item keys.

    Raises:
        InputError: no key of the history is a known item.
    """
    service = Service(workdir_uri, release_id, beam)
    known, unknown = service.ids(history)
    if not known:
        raise InputError(
            f"none of the {len(history)} items of --history is known to {service.release.release_id}: {', '.join(history[:5])}"
        )
    state = service.retriever.encode([known])
    found = service.retriever.retrieve(
        state, k, excluded=None if keep_history else [known], blocked=service.ids(blocked)[0]
    )
    space = service.retriever.model.space
    items = [
        {
            "rank": rank,
            **service.item(int(item)),
            "score": round(float(found.score_Uk[0, rank]), 4),
            "path": space.decode(found.path_Uk[0, rank]).tolist(),
            "path_id": int(found.path_Uk[0, rank]),
            "path_probability": float(found.path_probability_Uk[0, rank]),
        }
        for rank, item in enumerate(found.item_Uk[0])
        if item >= 0
    ]
    document: dict[str, Any] = {
        "release_id": service.release.release_id,
        "history": list(history),
        "unknown": unknown,
        "candidates": int(found.num_candidates_U[0]),
        "beam": service.retriever.beam,
        "items": items,
    }
    if explain:
        document["paths"] = _visited(service, state)
    return Answer(document, _as_text(document))


def _visited(service: Service, state: Any) -> list[dict[str, Any]]:
    paths = service.retriever.search(state)
    shown = []
    for path, log_prob in zip(paths.path_NB[0].tolist(), paths.log_prob_NB[0].tolist(), strict=True):
        held = service.retriever.index.items(path)
        bias = service.retriever.bias_V[held]
        neighbours = held[np.argsort(-bias, kind="stable")][:5]
        shown.append(
            {
                "path": service.retriever.model.space.decode(np.array(path)).tolist(),
                "path_id": path,
                "probability": float(np.exp(log_prob)),
                "size": len(held),
                "items": [service.item(int(item)) for item in neighbours],
            }
        )
    return shown


def _label(item: dict[str, Any]) -> str:
    return f"{item['item_key']} {item['title']}" if item["title"] else str(item["item_key"])


def _as_text(document: dict[str, Any]) -> str:
    lines = [f"{document['release_id']}: {document['candidates']} candidates on {document['beam']} paths"]
    if document["unknown"]:
        lines.append(f"unknown items left out: {', '.join(document['unknown'])}")
    lines += [
        f"{item['rank'] + 1:3} {item['score']:8.3f}  {_label(item):50.50} path {'-'.join(map(str, item['path']))} (p {item['path_probability']:.4f})"
        for item in document["items"]
    ]
    for path in document.get("paths", []):
        lines.append(f"path {'-'.join(map(str, path['path']))}: p {path['probability']:.4f}, {path['size']} items")
        lines += [f"      {_label(item)}" for item in path["items"]]
    return "\n".join(lines)


def retrieve_users(
    workdir_uri: str,
    users_file: str,
    out: str,
    *,
    k: int,
    beam: int | None,
    release_id: str | None,
    keep_history: bool,
    blocked: Sequence[str],
) -> int:
    """Read JSON lines of users and histories, write JSON lines of users and items; return the number of users.

    Raises:
        InputError: the file is missing, or a line is not an object with ``user`` and ``history``.
    """
    service = Service(workdir_uri, release_id, beam)
    users = _read_users(users_file)
    barred = service.ids(blocked)[0]
    with fsspec.open(out, "w") as file:
        for start in range(0, len(users), USERS_PER_BLOCK):
            block = users[start : start + USERS_PER_BLOCK]
            histories = [service.ids(history)[0] for _, history in block]
            found = service.retriever.retrieve(
                service.retriever.encode(histories), k, excluded=None if keep_history else histories, blocked=barred
            )
            for row, (user, _) in enumerate(block):
                items = [
                    {"item_key": service.names[int(item)]["item_key"], "score": float(score)}
                    for item, score in zip(found.item_Uk[row], found.score_Uk[row], strict=True)
                    if item >= 0
                ]
                file.write(json.dumps({"user": user, "items": items}, ensure_ascii=False) + "\n")
    return len(users)


def _read_users(path: str) -> list[tuple[str, list[str]]]:
    users = []
    number = 0
    try:
        with fsspec.open(path, "r") as file:
            for line in file:
                number += 1
                if line.strip():
                    row = json.loads(line)
                    users.append((str(row["user"]), [str(key) for key in row["history"]]))
    except FileNotFoundError as error:
        raise InputError(f"--users {path} does not exist") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f'--users {path}, line {number}: expected {{"user": …, "history": [item keys]}}') from error
    return users
