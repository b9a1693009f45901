"""The columns of the samples, as arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

COLUMNS = ("history", "length", "positions", "targets", "weights", "context_categorical", "context_numeric")


def list_column(table: pa.Table, name: str) -> npt.NDArray[np.generic]:
    """Return a column of equal-length lists as a 2-D array (a plain column as 1-D)."""
    column = table.column(name).combine_chunks()
    if not pa.types.is_list(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), -1)


SAMPLE_TABLES = ("samples", "mixed_samples", "refresh_samples", "refresh_mixed_samples")
