"""Encoders of the history under a softmax over the items, searched exactly.

``youtube_dnn``: Covington et al., *Deep Neural Networks for YouTube Recommendations* (RecSys 2016), a pooled history through
a network, any later item as the target. ``self_attention``: Kang and McAuley, *Self-Attentive Sequential Recommendation* (ICDM
2018), with the softmax loss that later comparisons found it to need, the next items as targets.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from dr_core.arrays import FloatArray
from dr_core.baselines.base import Events, VectorBaseline
from dr_core.baselines.history_source import CutConfig, HistorySource, padded
from dr_core.config import Config
from dr_core.item_lists import ItemLists
from dr_core.learning.trainer import Phase, Trainer, TrainingConfig
from dr_core.model.encoder import EncoderConfig
from dr_core.model.objective import DeepRetrievalModel
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.space import PathSpace
from dr_core.progress import Progress


class SoftmaxEncoderConfig(Config):
    """What is trained, and for how long."""

    encoder: EncoderConfig = EncoderConfig()
    """The encoder."""
    reranker: RerankerConfig = RerankerConfig()
    """The softmax."""
    cut: CutConfig = CutConfig()
    """Training rows."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Peak rate of Adam."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the histories."""
    min_steps: int = Field(default=1, ge=1)
    """Steps to reach by further passes: an epoch of a small world is a few dozen of them."""


class SoftmaxEncoder(VectorBaseline):
    """score(x, v) = <state of the history, e_v> + b_v."""

    def __init__(self, name: str, config: SoftmaxEncoderConfig, seed: int = 0) -> None:
        self.name, self.config, self.seed = name, config, seed

    def fit(self, events: Events) -> None:
        config = self.config
        torch.manual_seed(self.seed)
        self.model = DeepRetrievalModel(
            config.encoder,
            StructureConfig(hidden=1, path_dim=1),
            config.reranker,
            PathSpace.even(2, 1),
            events.counts.astype(np.float64),
        )
        training = TrainingConfig(learning_rate=config.learning_rate, weight_decay=config.weight_decay, num_processes=1)
        source = HistorySource(events.histories, config.cut, self.seed)
        epochs = max(config.epochs, -(-config.min_steps // max(source.steps_per_epoch, 1)))
        progress = Progress(self.name, epochs * source.steps_per_epoch)
        phase = Phase(self.name, "warm_up", epochs)
        Trainer(self.model, source, phase, training, seed=self.seed, report=progress.report).run()
        self.model.requires_grad_(False)
        vector_VE, bias_V = self.model.reranker.item_vectors()
        self.item_VE = np.column_stack([vector_VE.numpy(), bias_V.numpy()])

    def users(self, histories: ItemLists) -> FloatArray:
        rows, lengths = padded(histories, self.config.cut.history_length)
        with torch.inference_mode():
            states = self.model.encode_last(torch.from_numpy(rows), torch.from_numpy(lengths)).numpy()
        return np.column_stack([states, np.ones(len(states), dtype=np.float32)])


KINDS = {"youtube_dnn": ("mean", False), "self_attention": ("attention", True)}
"""Encoder, and whether only the next items are ever targets, of each baseline."""


def softmax_encoder(
    name: str,
    reranker: RerankerConfig,
    cut: CutConfig,
    *,
    epochs: int,
    seed: int,
    min_steps: int = 1,
    dropout: float = 0.2,
    weight_decay: float = 0.0,
) -> SoftmaxEncoder:
    """Return one of ``KINDS``, trained on rows cut as ``cut`` says."""
    kind, next_only = KINDS[name]
    config = SoftmaxEncoderConfig(
        encoder=EncoderConfig.model_validate({"kind": kind, "dropout": dropout}),
        reranker=reranker,
        cut=cut.model_copy(update={"next_only": next_only or cut.next_only}),
        weight_decay=weight_decay,
        epochs=epochs,
        min_steps=min_steps,
    )
    return SoftmaxEncoder(name, config, seed)
