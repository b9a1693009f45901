"""Two towers, a batch's items as each other's negatives, corrected for how often each of them turns up.

Yi et al., *Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations* (RecSys 2019): section 3 for the
softmax over the batch (Algorithm 1), section 4 for the frequencies (Algorithms 2 and 3, ``frequency.py``), section 5 for
the towers: an item's id and content, the same embeddings on both sides, the user's side fed by the history, states of
length 1, a temperature, rewards as weights, training that follows the days.

Shape legend: B rows, L history, P positions, N user states, T targets a state, C distinct targets of a batch, D those and the
items of its histories, V items, E dimension of the towers, F dimension of an item's embedded features.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from dr_core.arrays import FloatArray
from dr_core.baselines.base import Events, ItemFeatures, VectorBaseline
from dr_core.baselines.frequency import FrequencyConfig, FrequencyEstimator
from dr_core.baselines.history_source import CutConfig, HistorySource, padded, pairs_of
from dr_core.baselines.value_table import ValueTable
from dr_core.config import Config
from dr_core.item_lists import ItemLists
from dr_core.model.encoder import assign_embedding_rows
from dr_core.model.objective import Batch
from dr_core.progress import Progress

ITEMS_AT_ONCE = 65_536
USERS_AT_ONCE = 512


class TwoTowerConfig(Config):
    """Sizes, the softmax over the batch, and for how long it is trained."""

    dim: int = Field(default=64, ge=1)
    """E, dimension of both towers' answers and of an item's id."""
    value_dim: int = Field(default=16, ge=1)
    """Dimension of every other feature's values."""
    hidden: int = Field(default=128, ge=1)
    """Units of each tower's hidden layer."""
    id_rows: int = Field(default=1_000_000, ge=2)
    """Most embedding rows for item ids: with more items the rarest share rows by hashing."""
    temperature: float = Field(default=0.1, gt=0)
    """Cosines are divided by it; smaller is sharper."""
    corrected: bool = True
    """Whether a logit is lowered by the log of the item's probability to be in a batch."""
    frequency: FrequencyConfig = FrequencyConfig()
    """The estimator of that probability."""
    cut: CutConfig = CutConfig(batch_rows=128, targets=4)
    """Training rows; a batch has up to rows x positions x targets items."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Rate of Adam."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the user tower's input dropped in training."""
    epochs: int = Field(default=20, ge=1)
    """Passes over the histories; of an update, over what is new."""


class Towers(nn.Module):
    """Item features -> f_v; item tower of f_v, user tower of the mean and the last f_v of a history. Both of length 1."""

    def __init__(self, config: TwoTowerConfig, rows_V: npt.NDArray[np.int64], features: ItemFeatures) -> None:
        super().__init__()
        self.rows_V = torch.from_numpy(rows_V)
        self.id_table = nn.Embedding(int(rows_V.max(initial=0)) + 1, config.dim)
        nn.init.normal_(self.id_table.weight, std=config.dim**-0.5)
        self.value_tables = nn.ModuleList(
            ValueTable(features.values[name], features.num_values[name], config.value_dim)
            for name in sorted(features.values)
        )
        self.numeric_VM = torch.from_numpy(features.numeric_VM)
        width = config.dim + config.value_dim * len(self.value_tables) + self.numeric_VM.shape[1]
        self.item_tower = _tower(width, config.hidden, config.dim)
        self.user_tower = _tower(2 * width, config.hidden, config.dim)
        self.dropout = nn.Dropout(config.dropout)

    def features(self, item_C: Tensor) -> Tensor:
        """Return the embedded features [C, F] of items; several values of one feature are averaged (section 5)."""
        embedded = [table(item_C) for table in self.value_tables]
        return torch.cat([self.id_table(self.rows_V[item_C]), *embedded, self.numeric_VM[item_C]], 1)

    def items(self, item_C: Tensor) -> Tensor:
        """Return unit vectors [C, E] of items."""
        return self.vectors(self.features(item_C))

    def vectors(self, feature_CF: Tensor) -> Tensor:
        """Return unit vectors [C, E] of items with these features."""
        return nn.functional.normalize(self.item_tower(feature_CF), dim=1)

    def states(self, history_BL: Tensor, row_N: Tensor, last_N: Tensor, item_D: Tensor, feature_DF: Tensor) -> Tensor:
        """Return unit vectors [N, E] of the users who have met ``history_BL[row_N, : last_N + 1]``.

        Args:
            item_D: int64, sorted; the items of the histories and perhaps others.
            feature_DF: their features.
        """
        met_BL1 = (history_BL >= 0)[..., None]
        embedded_BLF = feature_DF[torch.searchsorted(item_D, history_BL)] * met_BL1
        mean_BLF = embedded_BLF.cumsum(1) / met_BL1.cumsum(1).clamp_min(1)
        user_NF = torch.cat([mean_BLF[row_N, last_N], embedded_BLF[row_N, last_N]], 1)
        return nn.functional.normalize(self.user_tower(self.dropout(user_NF)), dim=1)


def _tower(width: int, hidden: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, dim))


class TwoTower(VectorBaseline):
    """score(u, v) = cosine of the two towers' vectors.

    :meth:`fit` starts anew; :meth:`update` goes on with the events of another day, also after :meth:`arrays` were kept and
    :meth:`restore` brought them back.
    """

    name = "two_tower"

    def __init__(self, config: TwoTowerConfig | None = None, seed: int = 0) -> None:
        self.config, self.seed = config or TwoTowerConfig(), seed

    def fit(self, events: Events) -> None:
        torch.manual_seed(self.seed)
        config = self.config
        rows_V = assign_embedding_rows(events.counts.astype(np.float64), config.id_rows)
        self.towers = Towers(config, rows_V, events.features or ItemFeatures.none(events.num_items))
        self.frequency, self.num_updates = FrequencyEstimator.empty(config.frequency), 0
        self.update(events)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return all that has to be kept from one day to the next: the towers and the state of the stream."""
        towers = {f"towers.{name}": value.numpy() for name, value in self.towers.state_dict().items()}
        frequency = {f"frequency.{name}": value for name, value in self.frequency.arrays().items()}
        return towers | frequency | {"rows": self.towers.rows_V.numpy(), "updates": np.array(self.num_updates)}

    @classmethod
    def restore(
        cls,
        config: TwoTowerConfig,
        arrays: dict[str, npt.NDArray[np.generic]],
        features: ItemFeatures | None = None,
        seed: int = 0,
    ) -> TwoTower:
        """Return the model whose :meth:`arrays` these are, ready for :meth:`update`.

        Args:
            features: of the items, as they were given to :meth:`fit`.
        """
        baseline = cls(config, seed)
        rows_V = arrays["rows"].astype(np.int64)
        baseline.towers = Towers(config, rows_V, features or ItemFeatures.none(len(rows_V)))

        def below(prefix: str) -> dict[str, npt.NDArray[np.generic]]:
            return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

        baseline.towers.load_state_dict(
            {name: torch.from_numpy(value.copy()) for name, value in below("towers.").items()}
        )
        baseline.frequency = FrequencyEstimator.restore(config.frequency, below("frequency."))
        baseline.num_updates = int(arrays["updates"])
        return baseline

    def update(self, events: Events, learned: npt.NDArray[np.int64] | None = None) -> None:
        """Learn what is new: the events after each user's first ``learned`` ones, with all before them as history.

        Args:
            events: of the same items; the histories up to and with the new day.
            learned: int64 [users]; none of the events was learned when None.
        """
        source = HistorySource(events.histories, self.config.cut, self.seed, events.rewards, learned)
        self.num_updates += 1
        torch.manual_seed(self.seed * 1_000_003 + self.num_updates)
        self.towers.train().requires_grad_(True)
        optimizer = torch.optim.Adam(self.towers.parameters(), lr=self.config.learning_rate, fused=True)
        progress = Progress(self.name, self.config.epochs * source.steps_per_epoch)
        for epoch in range(self.config.epochs):
            for step, batch in enumerate(source.batches(epoch)):
                loss = self._loss(batch)
                if loss is not None:
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                progress.at(epoch * source.steps_per_epoch + step + 1)
        self.towers.eval().requires_grad_(False)
        num_items = events.num_items
        parts = [
            self.towers.items(torch.arange(at, min(at + ITEMS_AT_ONCE, num_items))).numpy()
            for at in range(0, num_items, ITEMS_AT_ONCE)
        ]
        self.item_VE = np.concatenate(parts)

    def _loss(self, batch: Batch) -> Tensor | None:
        """Mean over the pairs of reward x -log of the batch softmax; None when the batch holds no pair."""
        pairs = pairs_of(batch)
        if pairs is None:
            return None
        row_N, position_N, target_NT, weight_NT, there_NT = pairs
        item_C, copies_C = torch.unique(target_NT[there_NT], return_counts=True)
        # One look-up for both towers: the gradient of a table is as large as the table.
        item_D = torch.unique(torch.cat([batch.history_BL.clamp_min(0).flatten(), item_C]))
        feature_DF = self.towers.features(item_D)
        state_NE = self.towers.states(batch.history_BL, row_N, position_N, item_D, feature_DF)
        item_CE = self.towers.vectors(feature_DF[torch.searchsorted(item_D, item_C)])
        logit_NC = state_NE @ item_CE.T / self.config.temperature
        own_NT = torch.searchsorted(item_C, target_NT.clamp_min(0).contiguous()).clamp_max(len(item_C) - 1)
        if self.config.corrected:
            log_prob_NT = corrected_log_softmax(logit_NC, own_NT, self._log_probability(item_C))
        else:
            log_prob_NT = plain_log_softmax(logit_NC, own_NT, copies_C)
        return -(log_prob_NT * weight_NT).sum() / there_NT.sum()

    def _log_probability(self, item_C: Tensor) -> Tensor:
        items = item_C.numpy()
        self.frequency.observe(items)
        return torch.from_numpy(np.log(self.frequency.probability(items))).float()

    def users(self, histories: ItemLists) -> FloatArray:
        rows, lengths = padded(histories, self.config.cut.history_length)
        states = [np.empty((0, self.item_VE.shape[1]), dtype=np.float32)]
        with torch.inference_mode():
            for at in range(0, len(rows), USERS_AT_ONCE):
                history_UL = torch.from_numpy(rows[at : at + USERS_AT_ONCE])
                last_U = torch.from_numpy(np.maximum(lengths[at : at + USERS_AT_ONCE] - 1, 0))
                item_D = torch.unique(history_UL.clamp_min(0))
                state_UE = self.towers.states(
                    history_UL, torch.arange(len(last_U)), last_U, item_D, self.towers.features(item_D)
                )
                states.append(state_UE.numpy())
        return np.concatenate(states)


def corrected_log_softmax(logit_NC: Tensor, own_NT: Tensor, log_probability_C: Tensor) -> Tensor:
    """Return log of the softmax over the batch's distinct items, each logit lowered by log p (equation 3), [N, T].

    p is the probability that a batch holds the item, so each distinct item has one column, however often it was drawn: what
    is left, over many batches, is the softmax over all items. Nothing has to be masked, since an item that is another
    row's target as well is no negative of its own.

    Args:
        logit_NC: of every state with every distinct item of the batch.
        own_NT: int64, the columns of each state's targets.
        log_probability_C: log p of the columns.
    """
    lowered_NC = logit_NC - log_probability_C
    log_prob_NT: Tensor = lowered_NC.gather(1, own_NT) - lowered_NC.logsumexp(1, keepdim=True)
    return log_prob_NT


def plain_log_softmax(logit_NC: Tensor, own_NT: Tensor, copies_C: Tensor) -> Tensor:
    """Return log of the uncorrected softmax over the whole batch, [N, T]: a column counts as often as it was drawn.

    A target's other copies (accidental hits) are left out of its own partition.

    Args:
        copies_C: int64, how many pairs of the batch hold each distinct item.
    """
    target_NT = logit_NC.gather(1, own_NT)
    total_N1 = (logit_NC + copies_C.log()).logsumexp(1, keepdim=True)
    share_NT = (target_NT + (copies_C.float() - 1).log()[own_NT] - total_N1).exp()
    log_prob_NT: Tensor = target_NT - total_N1 - torch.log1p(-share_NT.clamp_max(1 - 1e-6))
    return log_prob_NT
