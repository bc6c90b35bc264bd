"""Arrays as bytes, in the format of safetensors.

    8 bytes      the length of the header, a little-endian integer
    the header   JSON: {"name": {"dtype": "F32", "shape": [...], "data_offsets": [a, b]}, ...}
    the data     the arrays in C order, little-endian; a and b count from its beginning

(https://github.com/huggingface/safetensors, "Format".) The header is padded with spaces
to a multiple of 8 bytes, so that a reader can use the data in place.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backend.arrays import Array


def to_bytes(arrays: Mapping[str, Array]) -> bytes:
    """Return the arrays, converted to float32, in one piece."""
    header: dict[str, Any] = {}
    parts = []
    start = 0
    for name, x in arrays.items():
        part = np.ascontiguousarray(x, "<f4").tobytes()
        end = start + len(part)
        header[name] = {"dtype": "F32", "shape": list(x.shape), "data_offsets": [start, end]}
        parts.append(part)
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *parts])
