"""How each method is called, explained and drawn: one look for a method in every figure of a page.

Colours are Okabe and Ito's, which stay apart for colour-blind readers; marker and line style repeat the distinction for
those who print in grey.
"""

from __future__ import annotations

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
SUBJECT = "deep_retrieval"
BRUTE_FORCE = "brute_force"
CEILING = "exact_candidates"
CONTROLS = ("random_paths", "embedding_paths", "popular_candidates", "random_candidates")


@dataclass(frozen=True)
class MethodStyle:
    """One method's look."""

    label: str
    color: str
    marker: str
    line: Literal["-", ":", "-."] | tuple[float, tuple[float, ...]]
    width: float = 1.3


_KNOWN: dict[str, tuple[MethodStyle, str]] = {
    BRUTE_FORCE: (MethodStyle("Brute force", BLACK, "_", (0, (6, 3))), "the same softmax over all items"),
    SUBJECT: (MethodStyle("Deep Retrieval", BLUE, "o", "-", 2.4), "beam over learned paths, candidates reranked"),
    "deep_retrieval_paths_only": (
        MethodStyle("Deep Retrieval, paths only", SKY, "h", (0, (4, 1.5))),
        "no reranker: items in the order of their paths",
    ),
    "deep_retrieval_logistic": (
        MethodStyle("Deep Retrieval, logistic reranker", SKY, "v", (0, (1, 1))),
        "the same candidates, reranked by logistic regression on crosses of user and item",
    ),
    "deep_retrieval_mlp": (
        MethodStyle("Deep Retrieval, MLP reranker", SKY, "^", ":"),
        "the same candidates, reranked by a small network on crosses of user and item",
    ),
    "random_paths": (
        MethodStyle("Random paths", VERMILLION, "^", (0, (4, 1.5))),
        "structure model trained on a fixed random mapping",
    ),
    "embedding_paths": (
        MethodStyle("Embedding paths", ORANGE, "s", (0, (5, 1.5, 1, 1.5))),
        "structure model trained on the initial mapping, which never changes",
    ),
    CEILING: (
        MethodStyle("Exact candidates", GREEN, "D", (0, (1, 1))),
        "the softmax's own best N: the ceiling of candidate recall",
    ),
    "popular_candidates": (
        MethodStyle("Popular candidates", PURPLE, "v", (0, (5, 1.5, 1, 1.5, 1, 1.5))),
        "as many candidates, the most popular, reranked",
    ),
    "random_candidates": (
        MethodStyle("Random candidates", GREY, "x", (0, (1, 2))),
        "as many candidates, drawn at random, reranked",
    ),
    "popularity": (MethodStyle("Most popular", PURPLE, "P", ":"), "the same most popular items for everyone"),
    "item_cf": (MethodStyle("Item-CF", ORANGE, "p", "-"), "item-based collaborative filtering"),
    "ease": (MethodStyle("EASE", GREEN, "X", "-"), "closed-form linear item-item model"),
    "als": (MethodStyle("ALS", VERMILLION, "<", "-"), "implicit matrix factorisation"),
    "mult_vae": (MethodStyle("Mult-VAE", BLUE, "8", ":"), "variational autoencoder of a user's set of items"),
    "youtube_dnn": (MethodStyle("YouTube DNN", SKY, "d", "-"), "averaged history and softmax"),
    "self_attention": (
        MethodStyle("Self-attention", BLACK, "d", "-."),
        "self-attentive sequence model and softmax",
    ),
    "two_tower": (MethodStyle("Two-tower", PURPLE, "*", "-"), "in-batch softmax with frequency correction, all items"),
    "two_tower_ivf": (MethodStyle("Two-tower + IVF", PURPLE, ">", (0, (4, 1.5))), "two-tower vectors in an IVF index"),
    "two_tower_hnsw": (MethodStyle("Two-tower + HNSW", PURPLE, "<", ":"), "two-tower vectors in an HNSW graph"),
    "two_tower_ivf_pq": (
        MethodStyle("Two-tower + IVF-PQ", PURPLE, "8", (0, (1, 1))),
        "two-tower vectors in an IVF index with product quantisation",
    ),
    "two_tower_lsh": (MethodStyle("Two-tower + LSH", GREY, "*", (0, (5, 1.5, 1, 1.5))), "two-tower vectors, hashed"),
    "softmax_ivf": (MethodStyle("Softmax + IVF", GREEN, ">", (0, (4, 1.5))), "the same softmax in an IVF index"),
    "softmax_ivf_work": (
        MethodStyle("Softmax + IVF, as much work", GREEN, "<", (0, (1, 1))),
        "the same softmax in an IVF index of long lists, tuned to and read at Deep Retrieval's multiply-adds",
    ),
    "softmax_hnsw": (MethodStyle("Softmax + HNSW", VERMILLION, "X", "-."), "the same softmax in an HNSW graph"),
    "ffm": (MethodStyle("FFM", ORANGE, "P", "-"), "field-aware factorisation machine, all items"),
    "ffm_hnsw": (MethodStyle("FFM + HNSW", ORANGE, "d", ":"), "field-aware factorisation machine in an HNSW graph"),
}
_ORDER = list(_KNOWN)
_SPARE_COLORS = (SKY, GREEN, ORANGE, VERMILLION, PURPLE, GREY)
_SPARE_MARKERS = ("8", "1", "2", "3", "4", "+", "|")
_SPARE_LINES = ((0, (3, 1)), (0, (1, 1.5)), (0, (6, 1.5, 1, 1.5)))


def label(method: str) -> str:
    """Return the name that people read."""
    if method in _KNOWN:
        return _KNOWN[method][0].label
    base, _, rest = method.partition(SUBJECT)
    if not base and rest:
        return f"Deep Retrieval · {rest.strip('_').replace('_', ' ')}"
    return method.replace("_", " ").capitalize()


def explanation(method: str) -> str:
    """Return what the method is, in half a line; empty for a name that is not one of the project's."""
    return _KNOWN[method][1] if method in _KNOWN else ""


def ordered(methods: Iterable[str]) -> list[str]:
    """Return the distinct methods as tables list them: reference, Deep Retrieval and its arms, controls, rivals."""

    def place(method: str) -> tuple[int, int]:
        if method in _KNOWN:
            return (_ORDER.index(method), 0)
        if method.startswith(SUBJECT):
            return (_ORDER.index("deep_retrieval_paths_only"), 1)
        return (len(_ORDER), 0)

    return sorted(dict.fromkeys(methods), key=place)


class Styles:
    """Looks for all the methods of one page, each with its own."""

    def __init__(self, methods: Iterable[str]) -> None:
        self._styles: dict[str, MethodStyle] = {}
        for method in ordered(methods):
            spare = sum(name not in _KNOWN for name in self._styles)
            self._styles[method] = (
                _KNOWN[method][0]
                if method in _KNOWN
                else MethodStyle(
                    label(method),
                    _SPARE_COLORS[spare % len(_SPARE_COLORS)],
                    _SPARE_MARKERS[spare % len(_SPARE_MARKERS)],
                    _SPARE_LINES[spare % len(_SPARE_LINES)],
                )
            )

    def __getitem__(self, method: str) -> MethodStyle:
        return self._styles[method]
