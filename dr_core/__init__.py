"""Deep Retrieval: the algorithms, from arrays and tensors to arrays and tensors; :class:`DeepRetrieval` is the front door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dr_core.api import DeepRetrieval

__all__ = ["DeepRetrieval"]


def __getattr__(name: str) -> Any:
    """Import the front door when it is asked for: what needs one module of this package alone does not wait for torch."""
    if name == "DeepRetrieval":
        from dr_core.api import DeepRetrieval

        return DeepRetrieval
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
