"""Half weights: stores an ONNX file's large weights in 16 bits; they are read as 32 bits, so that no operation changes.

ONNX Runtime's processors compute in 32 bits and widen the weights once, when a session opens: half the file, the same
speed.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_LEAST_VALUES = 1024  # biases and scales stay exact
_LARGEST = float(np.finfo(np.float16).max)


def halve_weights(path: Path) -> None:
    """Rewrite a file in place. Weights beyond the range of 16 bits stay."""
    model = onnx.load(str(path))
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _LEAST_VALUES:
            continue
        values = numpy_helper.to_array(tensor)
        if np.abs(values).max() > _LARGEST:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(path))
