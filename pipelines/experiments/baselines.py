"""The baselines that ``dr compare`` fits, and the settings that each of them may choose from.

Every method gets at most ``TRIALS`` settings, the first being its usual one; the setting with the best recall on the
validation users is measured on the test users. The epochs are the same in every world: with a quarter of them YouTube
DNN lost more than a quarter of its recall on Amazon Beauty. Where ten of them are a few hundred steps it goes on: on
MovieLens-1M, 1,200 users held out, 10, 20 and 40 epochs found 18.5, 19.4 and 19.9 % in lists of ten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dr_core.baselines.als import ALS, ALSConfig
from dr_core.baselines.base import Baseline
from dr_core.baselines.ease import EASE, EASEConfig
from dr_core.baselines.ffm import FFM, FFMConfig
from dr_core.baselines.item_cf import ItemCF, ItemCFConfig
from dr_core.baselines.mult_vae import MultVAE, MultVAEConfig
from dr_core.baselines.session_knn import SessionKNN, SessionKNNConfig
from dr_core.baselines.softmax_encoders import softmax_encoder
from dr_core.baselines.two_tower import TwoTower, TwoTowerConfig
from dr_core.errors import ConfigError
from pipelines.config.run import RunConfig
from pipelines.experiments.choose import Settings
from pipelines.experiments.history_cut import cut_config
from pipelines.experiments.indexes import INDEXES, SOFTMAX_INDEXES
from pipelines.experiments.rerankers import RERANKERS
from pipelines.experiments.streaming_vq import STREAMING_VQ, STREAMING_VQ_SETTINGS

TRIALS = 3
MOST_DENSE_ITEMS = 10_000
"""Items that take part in the baselines whose cost is quadratic in them, or worse."""
SOFTMAX, RERANKED = "softmax", "rerankers"
"""Families without a baseline: indexes of Deep Retrieval's own vectors, other rerankers of its candidates."""


@dataclass(frozen=True)
class Recipe:
    """How a baseline is built, and the indexes that serve its vectors.

    Attributes:
        build: a new one from (run's configuration, settings, seed).
        settings: what it may choose from.
        indexes: of its vectors, by method name.
    """

    build: Callable[[RunConfig, Settings, int], Baseline]
    settings: tuple[Settings, ...]
    indexes: Mapping[str, str] = field(default_factory=dict)


def _encoder(name: str) -> Callable[[RunConfig, Settings, int], Baseline]:
    """Return the builder of an encoder under the run's own softmax, with the run's weight decay."""
    return lambda config, settings, seed: softmax_encoder(
        name, config.reranker, cut_config(config), seed=seed, weight_decay=config.training.weight_decay, **settings
    )


BASELINES: dict[str, Recipe] = {
    "item_cf": Recipe(
        lambda config, settings, seed: ItemCF(ItemCFConfig(**settings)),
        ({"shrinkage": 20.0}, {"shrinkage": 20.0, "half_life": 3.0}, {"shrinkage": 5.0, "half_life": 10.0}),
    ),
    "session_knn": Recipe(
        lambda config, settings, seed: SessionKNN(
            SessionKNNConfig(history_length=config.history_length, **settings)
        ),
        ({"kind": "vsknn", "neighbours": 100, "sample": 1000},
         {"kind": "stan", "neighbours": 500, "sample": 5000, "age_decay": 30.0},
         {"kind": "stan", "neighbours": 500, "sample": 5000, "query_decay": 20.0, "place_decay": 100.0}),
    ),
    "ease": Recipe(
        lambda config, settings, seed: EASE(EASEConfig(max_items=MOST_DENSE_ITEMS, **settings)),
        ({"regularisation": 300.0}, {"regularisation": 3000.0, "half_life": 4.0},
         {"regularisation": 300.0, "half_life": 10.0}),
    ),
    "als": Recipe(
        lambda config, settings, seed: ALS(ALSConfig(**settings), seed),
        ({"factors": 64, "alpha": 1.0, "regularisation": 50.0},
         {"factors": 64, "alpha": 1.0, "regularisation": 10.0, "half_life": 4.0},
         {"factors": 64, "alpha": 1.0, "regularisation": 10.0, "half_life": 10.0}),
    ),
    "mult_vae": Recipe(
        lambda config, settings, seed: MultVAE(MultVAEConfig(max_items=MOST_DENSE_ITEMS, **settings), seed),
        ({"hidden": 300, "latent": 100, "epochs": 40}, {"hidden": 300, "latent": 100, "epochs": 40, "half_life": 4.0},
         {"hidden": 300, "latent": 100, "epochs": 40, "half_life": 10.0}),
    ),
    "youtube_dnn": Recipe(
        _encoder("youtube_dnn"),
        ({"dropout": 0.2, "epochs": 10, "min_steps": 1400}, {"dropout": 0.4, "epochs": 10, "min_steps": 1400},
         {"dropout": 0.2, "epochs": 20, "min_steps": 2800}),
    ),
    "self_attention": Recipe(
        _encoder("self_attention"),
        ({"dropout": 0.2, "epochs": 10}, {"dropout": 0.4, "epochs": 10}, {"dropout": 0.2, "epochs": 20}),
    ),
    "two_tower": Recipe(
        lambda config, settings, seed: TwoTower(TwoTowerConfig(cut=cut_config(config, batch_rows=128), **settings), seed),
        ({"temperature": 0.1, "epochs": 20}, {"temperature": 0.07, "epochs": 20}, {"temperature": 0.2, "epochs": 20}),
        {"two_tower_ivf": "ivf", "two_tower_ivf_pq": "ivf_pq", "two_tower_lsh": "lsh", "two_tower_hnsw": "hnsw"},
    ),
    "ffm": Recipe(
        lambda config, settings, seed: FFM(FFMConfig(cut=cut_config(config, batch_rows=128), **settings), seed),
        ({"weight_decay": 1e-4, "epochs": 15}, {"weight_decay": 1e-2, "epochs": 15}, {"pair_dim": 64, "epochs": 15}),
        {"ffm_hnsw": "hnsw"},
    ),
}  # fmt: skip
"""The baselines, by method name."""


def families() -> dict[str, tuple[str, ...]]:
    """Return what is fitted together, with the methods that come of it."""
    fitted = {name: (name, *recipe.indexes) for name, recipe in BASELINES.items()}
    return fitted | {STREAMING_VQ: (STREAMING_VQ,), SOFTMAX: tuple(SOFTMAX_INDEXES), RERANKED: tuple(RERANKERS)}


def settings_of(family: str) -> dict[str, tuple[Settings, ...]]:
    """Return the settings that each method of a family tries."""
    recipe = BASELINES.get(family)
    indexes = recipe.indexes if recipe else SOFTMAX_INDEXES if family == SOFTMAX else {}
    settings = {method: INDEXES[kind].settings[:TRIALS] for method, kind in indexes.items()}
    own = recipe.settings if recipe else STREAMING_VQ_SETTINGS if family == STREAMING_VQ else ()
    return settings | ({family: own[:TRIALS]} if own else {})


def offered(family: str) -> dict[str, Any]:
    """Return a family's methods and settings as its record keeps them: it is measured anew when they change."""
    return {
        "methods": list(families()[family]),
        "offered": {method: [dict(chosen) for chosen in tried] for method, tried in settings_of(family).items()},
    }


def families_of(methods: Sequence[str]) -> list[str]:
    """Return the families in which the methods are, in the usual order; all of them when none is asked for.

    Raises:
        ConfigError: a method is not known; the message names those that are.
    """
    known = families()
    named = {method: family for family, group in known.items() for method in (family, *group)}
    unknown = [method for method in methods if method not in named]
    if unknown:
        raise ConfigError(
            f"--methods {', '.join(unknown)}: not a method; choose from {', '.join(dict.fromkeys(named))}"
        )
    wanted = {named[method] for method in methods} if methods else set(known)
    return [family for family in known if family in wanted]
