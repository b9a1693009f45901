"""Arrays mapped from files. A page is read when it is used; writing to it changes this process's copy alone, so that
compiled code takes a mapped array for any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_DTYPES = {"BOOL": np.bool_, "F32": np.float32, "F64": np.float64, "I64": np.int64, "I32": np.int32, "I8": np.int8}


def map_array(path: Path) -> npt.NDArray[Any]:
    """Map an ``.npy`` file; an array without entries is read, since nothing of it can be mapped."""
    try:
        return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
    except ValueError:
        return np.asarray(np.load(path, allow_pickle=False))


def map_tensors(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Map every tensor of a safetensors file: eight bytes with the header's length, the header as JSON, the numbers."""
    blob = np.memmap(path, dtype=np.uint8, mode="c")
    begin = 8 + int(blob[:8].view("<u8")[0])
    header = json.loads(blob[8:begin].tobytes())
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = (begin + place for place in entry["data_offsets"])
            tensors[name] = np.asarray(blob[start:end]).view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors
