"""ONNX files with weights: adds initializers to a graph that is stored without them; needs no onnx.

Concatenated protobuf messages are one message: their repeated fields are appended and their embedded messages merged
(protobuf.dev/programming-guides/encoding, "Last One Wins"). So a graph without weights, followed by a model message
that contains nothing but initializers, is the model with its weights.
"""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

# Field numbers of onnx.proto: ModelProto.graph, GraphProto.initializer; TensorProto's dims, data_type, name, raw_data.
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int8): 3}  # TensorProto.DataType


def append_initializers(file: BinaryIO, weights: Sequence[tuple[str, NDArray[Any]]]) -> None:
    """Write initializers after the graph in a file. weights: names and float32 or int8 arrays."""
    headers = [_tensor_header(name, weight) for name, weight in weights]
    tensor_sizes = [len(header) + weight.nbytes for header, (_, weight) in zip(headers, weights, strict=True)]
    starts = [_start(_INITIALIZER, size) for size in tensor_sizes]
    file.write(_start(_GRAPH, sum(map(len, starts)) + sum(tensor_sizes)))
    for start, header, (_, weight) in zip(starts, headers, weights, strict=True):
        file.write(start)
        file.write(header)
        file.write(np.ascontiguousarray(weight.astype(weight.dtype.newbyteorder("<"), copy=False)).data)


def _tensor_header(name: str, weight: NDArray[Any]) -> bytes:
    """A TensorProto up to the content of its raw_data."""
    dims = b"".join(_varint(_DIMS << 3) + _varint(size) for size in weight.shape)
    encoded = name.encode()
    return b"".join(
        (
            dims,
            _varint(_DATA_TYPE << 3) + _varint(_TYPES[weight.dtype]),
            _start(_NAME, len(encoded)) + encoded,
            _start(_RAW_DATA, weight.nbytes),
        )
    )


def _start(field: int, size: int) -> bytes:
    """Tag and size of a length-delimited field."""
    return _varint(field << 3 | 2) + _varint(size)


def _varint(number: int) -> bytes:
    return bytes(_groups(number))


def _groups(number: int) -> Iterator[int]:
    while number > 0x7F:
        yield number & 0x7F | 0x80
        number >>= 7
    yield number
