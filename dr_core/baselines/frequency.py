"""How often each item turns up in a stream of batches, without a vocabulary.

Yi et al., *Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations* (RecSys 2019), Algorithms 2 and
3: for every hashed slot, A holds the step of its last hit and B a moving average of the steps between hits; 1 / B estimates
the probability that a batch holds the item. A slot that items share looks too frequent, so of several hashes the least
frequent one is believed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from dr_core.arrays import DoubleArray, IntArray
from dr_core.config import Config


class FrequencyConfig(Config):
    """Size and speed of the estimator."""

    num_slots: int = Field(default=1 << 20, ge=1)
    """H, slots of each hash; 16 bytes a slot."""
    num_hashes: int = Field(default=1, ge=1)
    """Hash functions. More of them cost memory in proportion and find items that collide."""
    rate: float = Field(default=0.01, gt=0, le=1)
    """alpha: weight of the newest gap. Larger values follow a change sooner and scatter more (variance alpha / (2 - alpha)
    of that of one gap)."""
    initial_gap: float = Field(default=1_000.0, ge=1)
    """Steps between hits that an item is credited with before it was seen."""


@dataclass
class FrequencyEstimator:
    """The state of the stream; its arrays are all that has to be kept from one day to the next.

    Attributes:
        last_MH: int64 [num_hashes, H], the step of the last hit (A in the paper), 0 before any.
        gap_MH: float64 [num_hashes, H], steps between hits (B in the paper).
        step: batches seen.
    """

    config: FrequencyConfig
    last_MH: IntArray
    gap_MH: DoubleArray
    step: int = 0

    @classmethod
    def empty(cls, config: FrequencyConfig) -> FrequencyEstimator:
        """Return an estimator that has seen nothing."""
        shape = (config.num_hashes, config.num_slots)
        return cls(config, np.zeros(shape, dtype=np.int64), np.full(shape, config.initial_gap))

    def observe(self, item_ids: IntArray) -> None:
        """Take one batch: B <- (1 - alpha) B + alpha (t - A), A <- t for every slot that it hits, once.

        Args:
            item_ids: int64 [...], items of the batch; repeats within it count once.
        """
        self.step += 1
        items = np.unique(item_ids)
        rate = self.config.rate
        for hash_number in range(self.config.num_hashes):
            hit = np.unique(self._slots(items, hash_number))
            last, gap = self.last_MH[hash_number], self.gap_MH[hash_number]
            gap[hit] = (1 - rate) * gap[hit] + rate * (self.step - last[hit])
            last[hit] = self.step

    def probability(self, item_ids: IntArray) -> DoubleArray:
        """Return the estimated probability, float64 in (0, 1], that a batch holds each item: 1 / max over hashes of B."""
        gaps = [self.gap_MH[number][self._slots(item_ids, number)] for number in range(self.config.num_hashes)]
        longest: DoubleArray = np.max(gaps, axis=0)
        return 1.0 / np.maximum(longest, 1.0)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the state as arrays."""
        return {"last": self.last_MH, "gap": self.gap_MH, "step": np.array(self.step)}

    @classmethod
    def restore(cls, config: FrequencyConfig, arrays: dict[str, npt.NDArray[np.generic]]) -> FrequencyEstimator:
        """Return the estimator whose :meth:`arrays` these are.

        Raises:
            ValueError: they are of another size than the configuration asks for.
        """
        wanted = (config.num_hashes, config.num_slots)
        if arrays["last"].shape != wanted or arrays["gap"].shape != wanted:
            raise ValueError(
                f"the state is of {arrays['gap'].shape} hashes x slots, the configuration asks for {wanted}"
            )
        return cls(config, arrays["last"].astype(np.int64), arrays["gap"].astype(np.float64), int(arrays["step"]))

    def _slots(self, item_ids: IntArray, hash_number: int) -> IntArray:
        """Hash item ids into [0, H): a multiplicative hash of the id mixed with the hash's number."""
        seed = np.uint64((hash_number + 1) * 0x9E3779B97F4A7C15 % 2**64)
        mixed = np.asarray(item_ids).astype(np.uint64) + seed
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        mixed = mixed ^ (mixed >> np.uint64(31))
        return (mixed % np.uint64(self.config.num_slots)).astype(np.int64)
