"""Arrow arrays from NumPy and Python values, and back, without importing pandas.

Where pandas is installed, pa.array, pa.scalar and to_numpy import it: 175 ms of CPU time at each start, else 4 ms.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from image_finder.components.arrays import Mask


def text_array(values: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    """Values as an array of kind string or binary."""
    data = [None, pa.py_buffer(_offsets(values)), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(kind, len(values), data)


def text_list_array(values: Sequence[Sequence[str]]) -> pa.Array:
    """Lists of texts as an array of kind list of string."""
    texts = text_array([text.encode() for several in values for text in several], pa.string())
    buffers = [None, pa.py_buffer(_offsets(values))]
    return pa.Array.from_buffers(pa.list_(pa.string()), len(values), buffers, children=[texts])


def number_array(values: NDArray[Any], kind: pa.DataType, known: Mask | None = None) -> pa.Array:
    """Values, with the memory layout of kind, as an array; those not known are null."""
    validity = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [validity, pa.py_buffer(np.ascontiguousarray(values))])


def text_scalar(text: str) -> pa.Scalar:
    return text_array([text.encode()], pa.string())[0]


def number_scalar(number: int, kind: pa.DataType) -> pa.Scalar:
    return number_array(np.array([number], f"i{kind.bit_width // 8}"), kind)[0]


def moment_scalar(moment: datetime) -> pa.Scalar:
    """Like pa.scalar of a time without zone, to the second."""
    return number_scalar(int(moment.replace(tzinfo=UTC).timestamp()), pa.timestamp("s"))


def bools(values: pa.ChunkedArray) -> Mask:
    """Booleans as (n,) bool; null is False."""
    mask = np.zeros(len(values), bool)
    if len(mask):  # indices_nonzero of pyarrow 25 crashes where there is no chunk
        mask[np.from_dlpack(pc.indices_nonzero(values))] = True
    return mask


def numbers(values: pa.ChunkedArray, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers of kind dtype, without nulls, as (n,)."""
    return np.concatenate([np.empty(0, dtype), *(np.from_dlpack(chunk) for chunk in values.chunks if len(chunk))])


def _offsets(values: Sequence[Sequence[Any]]) -> NDArray[np.int32]:
    offsets = np.zeros(len(values) + 1, np.int32)
    offsets[1:] = np.cumsum(np.fromiter(map(len, values), np.int64, len(values)))
    return offsets
