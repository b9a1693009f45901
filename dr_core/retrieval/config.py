"""What a user is answered with, and at what cost."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dr_core.config import Config


class ServingConfig(Config):
    """How a release answers: the list, the width of the search, the history it looks at."""

    k: int = Field(10, ge=1)
    """Items a user is answered with."""
    beam: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """B, paths that a search visits. `auto` takes the price at which the validation users find `candidates` on average, or for a
    product of layers the narrowest beam that does."""
    candidates: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Items a user's paths should hold, on average. `auto` is what `budget.candidates` or `budget.recall` says, and where
    neither is given 7.5 x k (paper: 5 to 10 times the list): 75 for k = 10."""
    filter_history: bool = True
    """Whether a user is answered only with items that are new to that user. For a user of the log, all items of the log's
    rows are left out: kept events however long ago, and rows that were filtered (`seen_items`). For a history that is
    given, its items are. The figures called `filtered` leave out the history that is asked with, and nothing else."""
    history_length: int = Field(69, ge=1)
    """L, latest events of a user that are trained on, kept in `user_histories` and encoded when serving. A longer history
    costs training time in proportion."""

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.beam != "auto" and self.candidates != "auto":
            raise ValueError(
                "beam and candidates both say how wide the search is: set one of them, leave the other auto"
            )
        return self

    @property
    def wanted_candidates(self) -> float:
        """Candidates that are asked for where the budget names none."""
        return 7.5 * self.k if self.candidates == "auto" else float(self.candidates)
