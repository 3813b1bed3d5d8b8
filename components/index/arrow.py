"""Arrow: conversions that pyarrow begins by importing pandas, where it is installed: a quarter of a second a start."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def text_scalar(text: str) -> pa.Scalar:
    """Like pa.scalar of a text."""
    data = text.encode()
    ends = np.array([0, len(data)], np.int32).tobytes()
    return pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(ends), pa.py_buffer(data)])[0]


def number_scalar(number: int, kind: pa.DataType) -> pa.Scalar:
    """Like pa.scalar of a whole number; kind: of up to 64 bits."""
    data = number.to_bytes(kind.bit_width // 8, "little", signed=True)
    return pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(data)])[0]


def moment_scalar(moment: datetime) -> pa.Scalar:
    """Like pa.scalar of a time without zone, to the second."""
    return number_scalar(int(moment.replace(tzinfo=UTC).timestamp()), pa.timestamp("s"))


def bools(values: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Like to_numpy of booleans, (n,); what is null is False."""
    parts = [_bits(chunk, 1) & (_bits(chunk, 0) if chunk.null_count else True) for chunk in values.chunks]
    return np.concatenate([np.empty(0, bool), *parts])


def numbers(values: pa.ChunkedArray, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Like to_numpy of numbers without nulls, (n,); dtype: numpy's name of what the values are stored as."""
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype, len(chunk), chunk.offset * dtype.itemsize) for chunk in values.chunks
    ]
    return np.concatenate([np.empty(0, dtype), *parts])


def _bits(values: pa.Array, buffer: int) -> NDArray[np.bool_]:
    """Bits of one of an array's buffers: 0 says which are valid, 1 holds booleans."""
    packed = np.frombuffer(values.buffers()[buffer], np.uint8)
    return np.unpackbits(packed, bitorder="little")[values.offset : values.offset + len(values)].astype(bool)
