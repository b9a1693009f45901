"""The refinement of an M-step: items move to the paths whose visitors want them, by the softmax's own mass."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.sparse import csr_matrix
from torch import Tensor

from dr_core.arrays import IntArray
from dr_core.learning.budget import StructureChoice
from dr_core.learning.config import AssignmentConfig
from dr_core.learning.start import softmax_mass
from dr_core.model.objective import DeepRetrievalModel
from dr_core.paths.best_visits import BestVisitors
from dr_core.paths.refinement import refine_paths
from dr_core.paths.space import PathSpace


@dataclass(frozen=True)
class Refinement:
    """Refines mappings with one path an item (:func:`dr_core.paths.refinement.refine_paths`).

    Attributes:
        mass_NV: what the softmax wants for a sample of user states, float32 [N, V], sparse.
        space: K and D.
        budgets: each C, items a state visits.
        config: sweeps and capacity.
        seed: of the items that a sweep considers.
    """

    mass_NV: csr_matrix
    space: PathSpace
    budgets: tuple[float, ...]
    config: AssignmentConfig
    seed: int

    @classmethod
    def of(
        cls, model: DeepRetrievalModel, user_NE: Tensor, choice: StructureChoice, config: AssignmentConfig, seed: int
    ) -> Refinement:
        """Return the refinement for a model's softmax and a sample of user states, float32 [N, E]."""
        return cls(softmax_mass(model, user_NE), choice.space, choice.budgets, config, seed)

    def refine(self, *starts: IntArray) -> IntArray:
        """Refine the best of several mappings, int64 [V, 1]; return int64 [V, 1].

        The best is the one on whose visited paths the softmax has most of its mass, for equal numbers of candidates. Of
        equal ones it is the first. A mapping that leaves an item on no path does not take part.

        Raises:
            ValueError: every mapping leaves an item on no path, or one has several paths an item.
        """
        if any(start.shape[1] != 1 for start in starts):
            raise ValueError("only mappings with one path an item can be refined")
        complete = [start for start in starts if start.min() >= 0]
        if not complete:
            raise ValueError("every mapping leaves an item on no path: nothing can be refined")
        visitors = BestVisitors(self.mass_NV, self.space.num_paths, self.budgets)
        return refine_paths(
            self.mass_NV,
            max(complete, key=visitors.captured_mass),
            self.space.num_paths,
            visitors,
            num_sweeps=self.config.refine_sweeps,
            capacity=self.config.refine_capacity,
            seed=self.seed,
        )
