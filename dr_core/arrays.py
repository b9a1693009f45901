"""Names for the arrays that cross module borders."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
AnyIntArray = npt.NDArray[np.integer[Any]]
"""Item or path ids of whatever width their source has."""
Int8Array = npt.NDArray[np.int8]
"""Vectors in eight bits a dimension."""
FloatArray = npt.NDArray[np.float32]
"""Vectors and scores."""
DoubleArray = npt.NDArray[np.float64]
"""Sums, counts and figures."""
AnyFloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]
Array = TypeVar("Array", bound=npt.NDArray[Any])


def read_only(array: Array) -> Array:
    """Return a view that cannot be written: a compiled loop needs no variant of its own for arrays of files or of Arrow."""
    view = array.view()
    view.flags.writeable = False
    return view
