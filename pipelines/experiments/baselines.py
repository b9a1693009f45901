"""The rivals that ``dr compare`` fits, and the settings that each of them may choose from.

Every rival gets at most ``TRIALS`` settings, the first being its usual one; the setting with the best recall on the
validation users is measured on the test users. The epochs are the same in every world: with a quarter of them YouTube
DNN lost more than a quarter of its recall on Amazon Beauty. Where ten of them are a few hundred steps it goes on: on
MovieLens-1M, 1,200 users held out, 10, 20 and 40 epochs found 18.5, 19.4 and 19.9 % in lists of ten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dr_core.arrays import FloatArray
from dr_core.baselines.als import ALS, ALSConfig
from dr_core.baselines.ann import HNSW, IVF, IVFPQ, LSH, AnnIndex
from dr_core.baselines.base import Peer
from dr_core.baselines.ease import EASE, EASEConfig
from dr_core.baselines.ffm import FFM, FFMConfig
from dr_core.baselines.history_source import CutConfig
from dr_core.baselines.item_cf import ItemCF, ItemCFConfig
from dr_core.baselines.mult_vae import MultVAE, MultVAEConfig
from dr_core.baselines.softmax_encoders import softmax_encoder
from dr_core.baselines.two_tower import TwoTower, TwoTowerConfig
from pipelines.config.run import RunConfig

TRIALS = 3
MOST_DENSE_ITEMS = 10_000
"""Items that take part in the rivals whose cost is quadratic in them, or worse."""
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Rival:
    """A method that is fitted, and the indexes that serve its vectors.

    Attributes:
        build: a new one from (run's configuration, settings, seed).
        settings: what it may choose from.
        indexes: of its vectors, by method name.
    """

    build: Callable[[RunConfig, Settings, int], Peer]
    settings: tuple[Settings, ...]
    indexes: Mapping[str, str] = field(default_factory=dict)


def cut_of(config: RunConfig, **changes: Any) -> CutConfig:
    """Return how the run cuts its histories into training rows, with changes."""
    samples = config.samples
    cut = CutConfig(
        history_length=config.history_length,
        positions=samples.positions,
        targets=samples.targets,
        next_only=samples.target_mode == "next",
        batch_rows=config.training.batch_rows,
    )
    return cut.model_copy(update=changes)


def _encoder(name: str) -> Callable[[RunConfig, Settings, int], Peer]:
    """Return the builder of an encoder under the run's own softmax, with the run's weight decay."""
    return lambda config, settings, seed: softmax_encoder(
        name, config.reranker, cut_of(config), seed=seed, weight_decay=config.training.weight_decay, **settings
    )


RIVALS: dict[str, Rival] = {
    "item_cf": Rival(
        lambda config, settings, seed: ItemCF(ItemCFConfig(**settings)),
        ({"shrinkage": 20.0}, {"shrinkage": 20.0, "half_life": 3.0}, {"shrinkage": 5.0, "half_life": 10.0}),
    ),
    "ease": Rival(
        lambda config, settings, seed: EASE(EASEConfig(max_items=MOST_DENSE_ITEMS, **settings)),
        ({"regularisation": 300.0}, {"regularisation": 3000.0, "half_life": 4.0},
         {"regularisation": 300.0, "half_life": 10.0}),
    ),
    "als": Rival(
        lambda config, settings, seed: ALS(ALSConfig(**settings), seed),
        ({"factors": 64, "alpha": 1.0, "regularisation": 50.0},
         {"factors": 64, "alpha": 1.0, "regularisation": 10.0, "half_life": 4.0},
         {"factors": 64, "alpha": 1.0, "regularisation": 10.0, "half_life": 10.0}),
    ),
    "mult_vae": Rival(
        lambda config, settings, seed: MultVAE(MultVAEConfig(max_items=MOST_DENSE_ITEMS, **settings), seed),
        ({"hidden": 300, "latent": 100, "epochs": 40}, {"hidden": 300, "latent": 100, "epochs": 40, "half_life": 4.0},
         {"hidden": 300, "latent": 100, "epochs": 40, "half_life": 10.0}),
    ),
    "youtube_dnn": Rival(
        _encoder("youtube_dnn"),
        ({"dropout": 0.2, "epochs": 10, "min_steps": 1400}, {"dropout": 0.4, "epochs": 10, "min_steps": 1400},
         {"dropout": 0.2, "epochs": 20, "min_steps": 2800}),
    ),
    "self_attention": Rival(
        _encoder("self_attention"),
        ({"dropout": 0.2, "epochs": 10}, {"dropout": 0.4, "epochs": 10}, {"dropout": 0.2, "epochs": 20}),
    ),
    "two_tower": Rival(
        lambda config, settings, seed: TwoTower(TwoTowerConfig(cut=cut_of(config, batch_rows=128), **settings), seed),
        ({"temperature": 0.1, "epochs": 20}, {"temperature": 0.07, "epochs": 20}, {"temperature": 0.2, "epochs": 20}),
        {"two_tower_ivf": "ivf", "two_tower_ivf_pq": "ivf_pq", "two_tower_lsh": "lsh", "two_tower_hnsw": "hnsw"},
    ),
    "ffm": Rival(
        lambda config, settings, seed: FFM(FFMConfig(cut=cut_of(config, batch_rows=128), **settings), seed),
        ({"weight_decay": 1e-4, "epochs": 15}, {"weight_decay": 1e-2, "epochs": 15}, {"pair_dim": 64, "epochs": 15}),
        {"ffm_hnsw": "hnsw"},
    ),
}  # fmt: skip
SOFTMAX_INDEXES = {"softmax_ivf": "ivf", "softmax_ivf_work": "ivf_work", "softmax_hnsw": "hnsw"}
"""Indexes over Deep Retrieval's own softmax vectors, by method name."""
EQUAL_WORK = "softmax_ivf_work"
"""The index that is tuned to and read at Deep Retrieval's multiply-adds instead of its candidates: few, long lists."""
RERANKERS = {"deep_retrieval_logistic": "logistic", "deep_retrieval_mlp": "mlp"}
"""Rerankers of Deep Retrieval's candidates, by method name."""
INDEXES: dict[str, tuple[Callable[[FloatArray, Settings], AnnIndex], tuple[Settings, ...]]] = {
    "ivf": (
        lambda vectors, settings: IVF(vectors, **settings),
        ({"items_per_list": 16}, {"items_per_list": 4}, {"items_per_list": 4, "lengthened": False}),
    ),
    "ivf_work": (
        lambda vectors, settings: IVF(vectors, **settings),
        ({"items_per_list": 32}, {"items_per_list": 16}, {"items_per_list": 64}),
    ),
    "ivf_pq": (
        lambda vectors, settings: IVFPQ(vectors, **settings),
        ({"items_per_list": 32}, {"items_per_list": 32, "lengthened": False}, {"items_per_list": 32, "kept": 2}),
    ),
    "hnsw": (
        lambda vectors, settings: HNSW(vectors, **settings),
        ({"neighbours": 16}, {"neighbours": 16, "lengthened": False}, {"neighbours": 32}),
    ),
    "lsh": (
        lambda vectors, settings: LSH(vectors, **settings),
        ({"bits": 256}, {"bits": 512}, {"bits": 512, "lengthened": False}),
    ),
}
"""Builders of the indexes and the settings that each may choose from."""


def families() -> dict[str, tuple[str, ...]]:
    """Return what is fitted together, with the methods that come of it."""
    fitted = {name: (name, *rival.indexes) for name, rival in RIVALS.items()}
    return fitted | {"softmax": tuple(SOFTMAX_INDEXES), "rerankers": tuple(RERANKERS)}


def tried(settings: Sequence[Settings]) -> Sequence[Settings]:
    """Return those of a method's settings that are tried."""
    return settings[:TRIALS]


def offered(family: str) -> dict[str, Any]:
    """Return what a family's methods may choose from: what is measured anew when it changes."""
    rival = RIVALS.get(family)
    indexes = rival.indexes if rival else SOFTMAX_INDEXES if family == "softmax" else {}
    settings = {method: tried(INDEXES[kind][1]) for method, kind in indexes.items()}
    if rival:
        settings[family] = tried(rival.settings)
    return {
        "methods": list(families()[family]),
        "offered": {method: [dict(some) for some in each] for method, each in settings.items()},
    }


def families_of(methods: list[str]) -> list[str]:
    """Return the families in which the methods are, in the usual order; all of them when none is asked for.

    Raises:
        ValueError: a method is not known; the message names those that are.
    """
    known = families()
    named = {method: family for family, group in known.items() for method in (family, *group)}
    unknown = [method for method in methods if method not in named]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not a method; choose from {', '.join(dict.fromkeys(named))}")
    wanted = {named[method] for method in methods} if methods else set(known)
    return [family for family in known if family in wanted]
