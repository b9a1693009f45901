"""The registry of methods: how each is named in the JSON files, called, explained and drawn.

Colours are Okabe and Ito's, which stay apart for colour-blind readers; marker and line style repeat the distinction for
those who print in grey.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE, GREY = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
    "#7A828A",
)
Family = Literal["reference", "deep_retrieval", "control", "candidates", "popularity", "baseline", "index"]
"""What a method is compared as: the exact search; Deep Retrieval and its variants; the same structure model on paths that
were not learned; candidates of another origin, as many of them; the most popular items; another model that scores every
item; an approximate index of a model's vectors."""


@dataclass(frozen=True)
class Style:
    """How a method is drawn."""

    color: str
    marker: str
    line: Literal["-", ":", "-."] | tuple[float, tuple[float, ...]]
    width: float = 1.3


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: in the JSON files, on the command line and in the code.
        label: what people read.
        family: what it is compared as.
        style: its look, different from every other's.
        explanation: what it is, in half a line.
    """

    name: str
    label: str
    family: Family
    style: Style
    explanation: str = ""


SUBJECT = "deep_retrieval"
BRUTE_FORCE = "brute_force"
PATHS_ONLY = "deep_retrieval_paths_only"
RANDOM_START = "deep_retrieval_random_start"
POPULARITY = "popularity"
EXACT_CANDIDATES = "exact_candidates"

REGISTERED = (
    Method(
        BRUTE_FORCE, "Brute force", "reference", Style(BLACK, "_", (0, (6, 3))), "the same softmax over all items"
    ),
    Method(
        SUBJECT, "Deep Retrieval", "deep_retrieval", Style(BLUE, "o", "-", 2.4),
        "search over learned paths, candidates reranked",
    ),
    Method(
        PATHS_ONLY, "Deep Retrieval, paths only", "deep_retrieval", Style(SKY, "h", (0, (4, 1.5))),
        "no reranker: items in the order of their paths",
    ),
    Method(
        RANDOM_START, "Deep Retrieval, random start", "deep_retrieval", Style(SKY, "p", (0, (3, 1))),
        "learned from random paths instead of clusters, with more rounds",
    ),
    Method(
        "deep_retrieval_logistic", "Deep Retrieval, logistic reranker", "deep_retrieval", Style(SKY, "v", (0, (1, 1))),
        "the same candidates, reranked by logistic regression on crosses of user and item",
    ),
    Method(
        "deep_retrieval_mlp", "Deep Retrieval, MLP reranker", "deep_retrieval", Style(SKY, "^", ":"),
        "the same candidates, reranked by a small network on crosses of user and item",
    ),
    Method(
        "random_paths", "Random paths", "control", Style(VERMILLION, "^", (0, (4, 1.5))),
        "structure model trained on a fixed random mapping",
    ),
    Method(
        "embedding_paths", "Embedding paths", "control", Style(ORANGE, "s", (0, (5, 1.5, 1, 1.5))),
        "structure model trained on the initial mapping, which never changes",
    ),
    Method(
        EXACT_CANDIDATES, "Exact candidates", "candidates", Style(GREEN, "D", (0, (1, 1))),
        "the softmax's own best N: the ceiling of candidate recall",
    ),
    Method(
        "popular_candidates", "Popular candidates", "candidates", Style(PURPLE, "v", (0, (5, 1.5, 1, 1.5, 1, 1.5))),
        "as many candidates, the most popular, reranked",
    ),
    Method(
        "random_candidates", "Random candidates", "candidates", Style(GREY, "x", (0, (1, 2))),
        "as many candidates, drawn at random, reranked",
    ),
    Method(
        POPULARITY, "Most popular", "popularity", Style(PURPLE, "P", ":"), "the same most popular items for everyone"
    ),
    Method("item_cf", "Item-CF", "baseline", Style(ORANGE, "p", "-"), "item-based collaborative filtering"),
    Method(
        "session_knn", "Session kNN", "baseline", Style(VERMILLION, "P", "-."),
        "the latest histories that share items, by recency",
    ),
    Method("ease", "EASE", "baseline", Style(GREEN, "X", "-"), "closed-form linear item-item model"),
    Method("als", "ALS", "baseline", Style(VERMILLION, "<", "-"), "implicit matrix factorisation"),
    Method(
        "mult_vae", "Mult-VAE", "baseline", Style(BLUE, "8", ":"), "variational autoencoder of a user's set of items"
    ),
    Method("youtube_dnn", "YouTube DNN", "baseline", Style(SKY, "d", "-"), "averaged history and softmax"),
    Method(
        "self_attention", "Self-attention", "baseline", Style(BLACK, "d", "-."),
        "self-attentive sequence model and softmax",
    ),
    Method(
        "two_tower", "Two-tower", "baseline", Style(PURPLE, "*", "-"),
        "in-batch softmax with frequency correction, all items",
    ),
    Method(
        "two_tower_ivf", "Two-tower + IVF", "index", Style(PURPLE, ">", (0, (4, 1.5))),
        "two-tower vectors in an IVF index",
    ),
    Method(
        "two_tower_hnsw", "Two-tower + HNSW", "index", Style(PURPLE, "<", ":"), "two-tower vectors in an HNSW graph"
    ),
    Method(
        "two_tower_ivf_pq", "Two-tower + IVF-PQ", "index", Style(PURPLE, "8", (0, (1, 1))),
        "two-tower vectors in an IVF index with product quantisation",
    ),
    Method(
        "two_tower_lsh", "Two-tower + LSH", "index", Style(GREY, "*", (0, (5, 1.5, 1, 1.5))),
        "two-tower vectors, hashed",
    ),
    Method(
        "softmax_ivf", "Softmax + IVF", "index", Style(GREEN, ">", (0, (4, 1.5))), "the same softmax in an IVF index"
    ),
    Method(
        "softmax_ivf_work", "Softmax + IVF, as much work", "index", Style(GREEN, "<", (0, (1, 1))),
        "the same softmax in an IVF index of long lists, tuned to and read at Deep Retrieval's multiply-adds",
    ),
    Method(
        "softmax_hnsw", "Softmax + HNSW", "index", Style(VERMILLION, "X", "-."), "the same softmax in an HNSW graph"
    ),
    Method(
        "streaming_vq", "Streaming VQ", "index", Style(SKY, "s", (0, (5, 1.5, 1, 1.5))),
        "one codebook learned with its own towers, clusters merged by bias, reranked by the same softmax",
    ),
    Method("ffm", "FFM", "baseline", Style(ORANGE, "P", "-"), "field-aware factorisation machine, all items"),
    Method(
        "ffm_hnsw", "FFM + HNSW", "index", Style(ORANGE, "d", ":"), "field-aware factorisation machine in an HNSW graph"
    ),
)  # fmt: skip
"""All methods, as tables list them, but for those of :func:`other_paths_per_item`."""
_BY_NAME = {method.name: method for method in REGISTERED}
_ORDER = list(_BY_NAME)
_OTHER_PATHS = re.compile(rf"{SUBJECT}_j(\d+)")


def other_paths_per_item(num_paths: int) -> str:
    """Return the name of the variant with another J."""
    return f"{SUBJECT}_j{num_paths}"


def find(name: str) -> Method | None:
    """Return a method by its name; None where no such method is registered."""
    variant = _OTHER_PATHS.fullmatch(name)
    if variant is None:
        return _BY_NAME.get(name)
    num_paths = int(variant.group(1))
    style = Style((SKY, GREEN, ORANGE)[num_paths % 3], "12348+|"[num_paths % 7], (0, (6, 1.5, 1, 1.5)))
    label, what = f"Deep Retrieval, J={num_paths}", f"learned with {num_paths} paths an item and as many candidates"
    return Method(name, label, "deep_retrieval", style, what)


def of_family(*families: Family) -> tuple[str, ...]:
    """Return the names of the methods of some families, in the registry's order."""
    return tuple(method.name for method in REGISTERED if method.family in families)


CONTROLS = (*of_family("control"), *(name for name in of_family("candidates") if name != EXACT_CANDIDATES))
"""What Deep Retrieval has to beat at equal cost."""


def label(name: str) -> str:
    """Return the name that people read; of a method that is not registered, its own."""
    method = find(name)
    return method.label if method else name.replace("_", " ").capitalize()


def explanation(name: str) -> str:
    """Return what a method is, in half a line; empty where it is not registered."""
    method = find(name)
    return method.explanation if method else ""


def ordered(names: Iterable[str]) -> list[str]:
    """Return the distinct methods as tables list them: reference, Deep Retrieval and its variants, controls, baselines."""

    def rank(name: str) -> tuple[int, int]:
        variant = _OTHER_PATHS.fullmatch(name)
        if variant:
            return (_ORDER.index(PATHS_ONLY), int(variant.group(1)))
        return (_ORDER.index(name) if name in _BY_NAME else len(_ORDER), 0)

    return sorted(dict.fromkeys(names), key=rank)
