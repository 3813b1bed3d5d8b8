"""Weight sources: finds which tensor of the model each weight of an exported tower comes from, by comparing contents."""

from collections.abc import Mapping
from importlib.metadata import distribution
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from image_finder.components.arrays import FloatArray
from image_finder.components.encoders.weights import TrunkPackage
from image_finder.components.errors import BundleError
from image_finder.components.starter.manifest import TrunkFile, TrunkTensor, WeightForm, WeightSource
from image_finder.components.starter.weights import column_scales, in_int8
from image_finder.components.storage import sha256_of_bytes, sha256_of_file

_KEPT_BYTES = 1024  # smaller initializers stay in the graph


def strip_tower(
    path: Path, tower: str, tensors: Mapping[str, FloatArray], norms: Mapping[str, float]
) -> tuple[WeightSource, ...]:
    """Remove the weights from an exported tower's file and return their sources.

    tower: prefix of its tensors. norms: epsilon of each batch norm, by the prefix of its tensors. Raises BundleError if a
    weight has no source.
    """
    model = onnx.load(path)
    found = _Sources(tower, tensors, norms)
    sources = []
    for each in list(model.graph.initializer):
        weight = numpy_helper.to_array(each)
        if weight.nbytes < _KEPT_BYTES or weight.dtype not in (np.float32, np.int8) or not weight.any():
            continue
        source = found.of(each.name, weight)
        if source is None:
            raise BundleError(f"{path.name}: no tensor of the model is the source of {each.name} {weight.shape}")
        sources.append(source)
        model.graph.initializer.remove(each)
    onnx.save(model, path)
    return tuple(sources)


class _Sources:
    def __init__(self, tower: str, tensors: Mapping[str, FloatArray], norms: Mapping[str, float]) -> None:
        self._tower, self._norms = tower, norms
        self._tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{tower}.")}
        self._forms: dict[str, WeightSource] = {}  # by the hash of the content
        for name, tensor in self._tensors.items():
            self._add(tensor, name, "same")
            if tensor.ndim == 2:
                scale = column_scales(tensor.T)
                self._add(tensor.T, name, "transposed")
                self._add(in_int8(tensor.T, scale), name, "int8")
                self._add(scale, name, "int8_scale")

    def of(self, name: str, weight: NDArray[Any]) -> WeightSource | None:
        known = self._forms.get(_hash(weight)) or self._folded(name, weight)
        return known.model_copy(update={"name": name}) if known else None

    def _add(self, weight: NDArray[Any], tensor: str, form: WeightForm) -> None:
        self._forms.setdefault(_hash(weight), WeightSource(name="", tensor=tensor, form=form))

    def _folded(self, name: str, weight: NDArray[Any]) -> WeightSource | None:
        """Of a convolution into which the exporter has folded the batch norm that follows it."""
        convolution = f"{self._tower}.{name.removesuffix('_bias')}"
        plain = self._tensors.get(convolution)
        for norm, epsilon in self._norms.items() if plain is not None else ():
            gamma, beta, mean, variance = (
                self._tensors[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
            )
            if len(gamma) != len(weight):
                continue
            scale = gamma / np.sqrt(variance + np.float32(epsilon))
            if weight.ndim == 1:
                form, value = "folded_bias", beta - mean * scale
            else:
                form, value = "folded", plain * scale.reshape(-1, *(1,) * (weight.ndim - 1))
            if np.allclose(value, weight, rtol=1e-4, atol=1e-5 * float(np.abs(weight).max())):
                return WeightSource(name=name, tensor=convolution, form=form, norm=norm, epsilon=epsilon)
        return None


def _hash(weight: NDArray[Any]) -> str:
    return f"{weight.dtype}{weight.shape}{sha256_of_bytes(np.ascontiguousarray(weight).tobytes())}"


def find_trunks(
    packages: Mapping[str, TrunkPackage], tensors: Mapping[str, FloatArray]
) -> tuple[dict[str, TrunkFile], dict[str, TrunkTensor]]:
    """The files of packaged trunks, and the file and offset of each of their tensors. Raises BundleError."""
    places = {}
    contents = {key: package.path.read_bytes() for key, package in packages.items()}
    for name, tensor in tensors.items():
        place = next(filter(None, (_place(content, key, tensor) for key, content in contents.items())), None)
        if place is None:
            raise BundleError(f"no packaged trunk contains {name} {tensor.shape}")
        places[name] = place
    return {key: packaged_file(package.name, package.path) for key, package in packages.items()}, places


def packaged_file(package: str, path: Path) -> TrunkFile:
    """Description of a file of an installed package."""
    installed = distribution(package)
    below = path.relative_to(Path(str(installed.locate_file(""))).resolve())
    return TrunkFile(
        package=package,
        version=installed.version,
        path=below.as_posix(),
        sha256=sha256_of_file(path),
        size_bytes=path.stat().st_size,
    )


def _place(content: bytes, key: str, tensor: FloatArray) -> TrunkTensor | None:
    # Weights that were converted from TensorFlow are stored with their axes in its order.
    for axes in permutations(range(tensor.ndim)):
        stored = tensor.transpose(axes)
        if (offset := content.find(stored.astype("<f4").tobytes())) >= 0:
            return TrunkTensor(file=key, offset=offset, shape=stored.shape, axes=tuple(np.argsort(axes).tolist()))
    return None
