"""Weights of a starter model: tensors of the trained model from stored and packaged ones, and initializers from tensors.

weights.safetensors: 8-bit rows with a scale each, 16-bit vectors:
    heads             vectors NAME float16; matrices NAME:rows (out, ...) int8 times NAME:scale (out,) float32
    trunk             difference to the packaged trunk: vectors NAME float16; matrices as low-rank products
                      NAME:left (out, rank) int8 * NAME:scale (rank,) float32 @ NAME:right (rank, in) int8
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from image_finder.components.arrays import FloatArray
from image_finder.components.starter.manifest import WeightSource
from image_finder.components.starter.trunk_files import TrunkTensors

INT8_MAX = 127


class ModelTensors:
    """float32 tensors of the trained model by name; those that did not learn come from the trunks."""

    def __init__(self, stored: Mapping[str, NDArray[Any]], packaged: "TrunkTensors | Mapping[str, FloatArray]") -> None:
        """stored: content of weights.safetensors."""
        self._stored = stored
        self._packaged = packaged

    def __getitem__(self, name: str) -> FloatArray:
        """Raises KeyError."""
        found: FloatArray
        stored = self._stored
        if (rows := stored.get(f"{name}:rows")) is not None:
            found = rows.astype(np.float32) * _by_row(stored[f"{name}:scale"], rows.ndim)
        elif (left := stored.get(f"{name}:left")) is not None:
            found = self._packaged[name]
            # float64: in float32 the last bit, and with it the bundle's hash, depends on the number of threads
            scaled = left.astype(np.float64) * stored[f"{name}:scale"]
            difference = (scaled @ stored[f"{name}:right"].astype(np.float64)).astype(np.float32)
            found = found + difference.reshape(found.shape)
        elif (vector := stored.get(name)) is not None:
            found = vector.astype(np.float32)
            found = self._packaged[name] + found if of_trunk(name) else found
        else:
            found = self._packaged[name]
        return found


def of_trunk(name: str) -> bool:
    """Whether a tensor of the model belongs to a trunk, and is stored as the difference to the packaged one."""
    return any(part in name for part in (".stem.", ".tails.", ".concepts.stages.", ".concepts.classifier."))


def initializer(source: WeightSource, tensors: ModelTensors) -> NDArray[Any]:
    """The initializer that a source describes; float32 or int8. Raises KeyError."""
    if source.form == "folded_bias":
        scale = _norm_scale(source, tensors)
        return tensors[f"{source.norm}.bias"] - tensors[f"{source.norm}.running_mean"] * scale
    weight = tensors[source.tensor]
    if source.form == "folded":
        return weight * _by_row(_norm_scale(source, tensors), weight.ndim)
    if source.form == "transposed":
        return np.ascontiguousarray(weight.T)
    if source.form in ("int8", "int8_scale"):
        scale = column_scales(weight.T)
        return scale if source.form == "int8_scale" else in_int8(weight.T, scale)
    return weight


def tensors_of(source: WeightSource) -> tuple[str, ...]:
    """Names of the tensors that `initializer` reads."""
    norm = ("weight", "running_var") if source.form == "folded" else ()
    if source.form == "folded_bias":
        return tuple(f"{source.norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var"))
    return (source.tensor, *(f"{source.norm}.{part}" for part in norm))


def column_scales(matrix: FloatArray) -> FloatArray:
    """Scale of each column for symmetric 8 bits, as ONNX Runtime's quantiser computes it: (columns,) float32."""
    highest = np.abs(matrix).max(axis=0).astype(np.float64)
    return np.where(highest > 0, highest / INT8_MAX, 1.0).astype(np.float32)


def in_int8(matrix: FloatArray, scale: FloatArray) -> NDArray[np.int8]:
    """A matrix in units of its columns' scales, rounded half to even."""
    rounded: NDArray[np.int8] = np.clip(np.rint(matrix / scale), -INT8_MAX, INT8_MAX).astype(np.int8)
    return rounded


def _by_row(scale: FloatArray, ndim: int) -> FloatArray:
    return scale.reshape(-1, *(1,) * (ndim - 1))


def _norm_scale(source: WeightSource, tensors: ModelTensors) -> FloatArray:
    variance = tensors[f"{source.norm}.running_var"]
    scale: FloatArray = tensors[f"{source.norm}.weight"] / np.sqrt(variance + np.float32(source.epsilon))
    return scale
