"""A run as it might have been: every key of summary.json and report_data.json filled with plausible figures."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from pipelines.report.render import render_report

NUM_ITEMS = 3125
VIEWS = ((True, 10), (False, 10), (True, 50))
CEILINGS = {
    "deep_retrieval": (0.93, 34.0),
    "random_paths": (0.82, 95.0),
    "embedding_paths": (0.90, 45.0),
    "exact_candidates": (1.0, 6.0),
    "popular_candidates": (0.80, 70.0),
    "random_candidates": (0.5, 900.0),
    "softmax_ivf": (0.95, 55.0),
    "deep_retrieval_j1": (0.92, 38.0),
}
"""Overlap in the limit, and the candidates at which about 63 % of it is reached."""


def _figures(method: str, candidates: float, k: int, filtered: bool) -> dict[str, float]:
    limit, scale = CEILINGS[method]
    overlap = limit * (1 - math.exp(-((candidates / scale) ** 0.7)))
    kept = 1 - (1 - overlap) ** 1.7
    recall_base = 0.42 if method == "exact_candidates" else 0.38 * limit
    return {
        "precision": (0.2058 if filtered else 0.1512) * kept * (1 if k == 10 else 0.62),
        "recall": 0.077 * kept * (1 if k == 10 else 2.9),
        "overlap": overlap,
        "candidate_recall": recall_base * (1 - math.exp(-candidates / (scale * 0.6 + 55))),
    }


def build_summary() -> dict[str, Any]:
    generator = random.Random(0)
    curves, results, differences = [], [], []
    for filtered, k in VIEWS:
        for method, (_, scale) in CEILINGS.items():
            structured = "paths" in method or "deep" in method
            for step in range(11):
                candidates = NUM_ITEMS * 0.005 * 20 ** (step / 10)
                beam = max(1, round(candidates / (8 if scale < 40 else 4))) if structured else None
                adds = 24_000 * (beam or 6) ** 0.6 + 64 * candidates
                point = _figures(method, candidates, k, filtered) | {
                    "method": method,
                    "filtered": filtered,
                    "k": k,
                    "beam": beam,
                    "candidates": candidates,
                    "multiply_adds": None if method in ("exact_candidates", "popular_candidates") else adds,
                    "microseconds": 40 + 0.6 * candidates,
                }
                curves.append(point)
                if step == 5:
                    precision = point["precision"]
                    results.append(
                        {name: value for name, value in point.items() if name != "multiply_adds"}
                        | {
                            "users": 600,
                            "f1": 0.45 * precision,
                            "ndcg": 1.08 * precision,
                            "hit_rate": min(1.0, 3.6 * precision),
                            "sd": 0.0021 + 0.001 * generator.random(),
                            "interval": [precision - 0.0134, precision + 0.0137],
                        }
                    )
        brute = {"method": "brute_force", "filtered": filtered, "k": k, "users": 600, "precision": 0.2058}
        brute |= {"recall": 0.0771, "f1": 0.0921, "ndcg": 0.2214, "hit_rate": 0.7442, "overlap": 1.0}
        brute |= {"candidates": NUM_ITEMS, "candidate_recall": 1.0, "beam": None, "microseconds": 412.5}
        brute |= {"sd": 0.0019, "interval": [0.1921, 0.2196]}
        brute["precision"] *= (1 if filtered else 0.7347) * (1 if k == 10 else 0.62)
        brute["interval"] = [brute["precision"] - 0.0137, brute["precision"] + 0.0138]
        curves.append(
            {name: brute[name] for name in ("method", "filtered", "k", "beam", "candidates", "precision", "recall")}
            | {"overlap": 1.0, "candidate_recall": 1.0, "multiply_adds": 64 * NUM_ITEMS, "microseconds": 412.5}
        )
        popular = dict.fromkeys(("f1", "ndcg", "hit_rate", "candidate_recall", "candidates", "beam", "sd"))
        results.append(
            {"method": "popularity", "filtered": filtered, "k": k, "users": 600, "precision": 0.154, "recall": 0.051}
            | popular
            | {"overlap": 0.21, "microseconds": 0.4, "interval": None}
        )
        results.append(brute)
        for against in ("random_paths", "embedding_paths", "popular_candidates", "random_candidates"):
            for axis, places in (("candidates", (40, 80, 160)), ("multiply_adds", (90_000, 130_000))):
                for at in places if "paths" in against or axis == "candidates" else ():
                    for metric in ("overlap", "candidate_recall", "precision"):
                        mean = {"random_paths": 0.11, "embedding_paths": 0.012}.get(against, 0.2) * 40 / min(at, 200)
                        mean *= {"overlap": 1, "candidate_recall": 0.25, "precision": 0.1}[metric]
                        mean -= 0.009 if axis == "multiply_adds" and against == "embedding_paths" else 0
                        width = {"overlap": 0.006, "candidate_recall": 0.003, "precision": 0.002}[metric]
                        differences.append(
                            {"method": "deep_retrieval", "against": against, "metric": metric, "filtered": filtered}
                            | {"k": k, "axis": axis, "at": at, "mean": mean, "low": mean - width, "high": mean + width}
                        )
        for metric, mean in (("precision", -0.0011), ("recall", -0.0006)):
            differences.append(
                {"method": "deep_retrieval", "against": "brute_force", "metric": metric, "filtered": filtered, "k": k}
                | {"axis": None, "at": None, "mean": mean, "low": mean - 0.0009, "high": mean + 0.0009}
            )
    stages = [
        ("preprocess", 18.2, 1_000_209, 575_281),
        ("samples", 9.6, 575_281, 412_004),
        ("warm_up", 141.0, 412_004, 0),
    ]
    stages += [("initialize_paths", 2.1, 3125, 3125)]
    for number in range(4):
        stages += [
            (name, seconds + number, 412_004, 3125)
            for name, seconds in (("e_step", 52), ("scores", 21), ("assign", 0.8))
        ]
    stages += [("build_index", 1.4, 9375, 1107), ("evaluate", 33.0, 600, None), ("publish", 0.7, 1, 1)]
    return {
        "run_id": "20260114T091502-demo",
        "config_hash": "9f31c02e",
        "release_id": "r-20260114-0",
        "seeds": 3,
        "data": {"users": 5918, "items": NUM_ITEMS, "events": 518758, "train_users": 4718, "test_users": 600}
        | {"quarantined": 12, "filtered": 424928},
        "structure": {"K": 35, "D": 2, "J": 3, "S": 20, "alpha": 0.4871, "beam": 9},
        "stages": [{"name": a, "seconds": b, "rows_in": c, "rows_out": d} for a, b, c, d in stages],
        "rounds": [
            {"round": n + 1, "loss_structure": 4.9 - 0.4 * n + 0.05 * n * n, "loss_softmax": 6.02 - 0.08 * n}
            | {
                "surrogate_before": -1.61e6 + 4e4 * n,
                "surrogate_after_descent": -1.55e6 + 4e4 * n,
                "surrogate_after": -1.58e6,
            }
            | {"likelihood_before": -4.31 + 0.21 * n, "likelihood_after": -4.2 + 0.2 * n - (0.12 if n == 3 else 0)}
            | {"items_moved": round(2900 * 0.45**n), "occupied_paths": 1107 - 14 * n, "largest_path": 14 + 6 * n}
            | {"validation_recall": 0.241 + 0.006 * n - 0.0008 * n * n}
            for n in range(4)
        ],
        "results": results,
        "curves": curves,
        "health": {"occupied_paths": 1065, "largest_path": 32, "mean_path": 8.803, "gini": 0.2741}
        | {"normalized_entropy": 0.9312, "items_without_path": 0},
        "differences": differences,
    }


def build_data() -> dict[str, Any]:
    generator = random.Random(1)
    titles = ["Toy Story (1995)", "Alien (1979)", "M*A*S*H & Co <uncut> (1970)", "Amélie (2001)", "Fargo (1996)"]
    titles += ["The Matrix (1999)", "Blade Runner (1982)", "Casablanca (1942)", "Heat (1995)", "Brazil (1985)"]

    def sizes(mean: float, spread: float) -> list[list[int]]:
        drawn = [max(1, round(generator.gauss(mean, spread) ** 2 / mean)) for _ in range(1100)]
        return [[size, drawn.count(size)] for size in sorted(set(drawn))]

    labels = ["initial", *(f"after M-step {number}" for number in range(1, 5))]
    return {
        "dataset": "MovieLens-1M",
        "config_text": "structure:\n  num_nodes: 35\n  num_layers: 2\nassignment:\n  penalty: quartic\n  alpha: auto\n",
        "notes": ["Demo settings: 4 M-steps, 3 seeds.", "Timings were taken on two cores."],
        "path_sizes": [{"label": label, "histogram": sizes(8.5, 1 + 0.5 * n)} for n, label in enumerate(labels)],
        "by_activity": [
            {"method": method, "bucket": bucket, "users": 150 - 10 * n}
            | {"precision": base * (0.6 + 0.25 * n), "recall": base * (0.6 - 0.1 * n), "overlap": over - 0.02 * n}
            for method, base, over in (
                ("brute_force", 0.2, 1.0),
                ("deep_retrieval", 0.195, 0.87),
                ("random_paths", 0.17, 0.61),
                ("popularity", 0.15, 0.23),
            )
            for n, bucket in enumerate(("10 to 19", "20 to 49", "50 to 149", "150 up"))
        ],
        "by_popularity": [
            {"method": method, "bucket": bucket, "items": items, "share_of_recommendations": share[n]}
            | {"recall": share[n] * (0.12 if method != "popularity" else 0.09)}
            for method, share in (
                ("brute_force", (0.62, 0.30, 0.07, 0.01)),
                ("deep_retrieval", (0.63, 0.30, 0.06, 0.01)),
                ("popularity", (1.0, 0.0, 0.0, 0.0)),
            )
            for n, (bucket, items) in enumerate(
                (("top 5 %", 156), ("5 to 20 %", 469), ("20 to 50 %", 938), ("rest", 1562))
            )
        ],
        "example_paths": [
            {"path": [3 + n, 17], "path_id": 122, "size": 9 + n}
            | {
                "items": [
                    {"item_key": str(i), "title": title, "category": "Drama|Sci-Fi", "num_events": 1200.5 / (i + 1)}
                    for i, title in enumerate(titles[n : n + 4])
                ]
                + [{"item_key": f"item-{n}", "title": None, "category": None, "num_events": None}]
            }
            for n in range(6)
        ],
        "example_user": {
            "history": titles[:6],
            "paths": [
                {"path": [3, n], "probability": 0.31 / (n + 1), "size": 8 + n, "items": titles[n : n + 3]}
                for n in range(7)
            ],
            "items": titles[4:],
        },
        "training": [
            {"phase": phase, "epoch": epoch, "loss_softmax": 7.4 - 0.9 * math.log1p(place + epoch)}
            | {"loss_structure": None if phase == "warm up" else 6.1 - 0.5 * math.log1p(place + epoch - 3)}
            | {"rows_per_second": 8800.0 + 100 * epoch}
            for place, phase, epochs in (
                (0, "warm up", 4),
                (4, "round 1", 2),
                (6, "round 2", 2),
                (8, "round 3", 2),
                (10, "round 4", 2),
            )
            for epoch in range(1, epochs + 1)
        ],
    }


@pytest.fixture
def fake_summary() -> dict[str, Any]:
    return build_summary()


@pytest.fixture
def fake_data() -> dict[str, Any]:
    return build_data()


@pytest.fixture(scope="module")
def page() -> str:
    """The whole page, drawn once a module."""
    return render_report(build_summary(), build_data())
