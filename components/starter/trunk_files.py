"""Trunk files: pre-trained tensors and a tokenizer in packages, read as data; executes no code from them."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from image_finder.components.arrays import FloatArray
from image_finder.components.errors import BundleError
from image_finder.components.starter.manifest import TrunkFile, TrunkTensor
from image_finder.components.storage import sha256_of_file

FETCH = "image-finder starter fetch"


class TrunkError(BundleError):
    """A trunk's file that no installed package provides; `FETCH` downloads it."""


def located(file: TrunkFile, unpacked: Path | None = None) -> Path:
    """Path of a file with the expected content, in an unpacked package or an installed one.

    unpacked: directory of packages that are preferred to installed ones, laid out as in site-packages. Raises TrunkError.
    """
    needed = f"{file.package} {file.version}"
    if unpacked is not None and (unpacked / file.path).is_file():
        path, found = unpacked / file.path, needed
    else:
        try:
            installed = distribution(file.package)
        except PackageNotFoundError as error:
            raise TrunkError(f"the starter model needs {needed}, which is not installed. Run: {FETCH}") from error
        path, found = Path(str(installed.locate_file(file.path))), f"{file.package} {installed.version}"
    reason = f"the starter model needs {needed}, {found} has no file {file.path}"
    if path.is_file():
        if (sha256 := sha256_of_file(path)) == file.sha256:
            return path
        reason = f"{path} of {found} has sha256 {sha256[:12]}, the starter model needs {file.sha256[:12]} of {needed}"
    raise TrunkError(f"{reason}. Run: {FETCH}")


class TrunkTensors:
    """Tensors of trunk files, mapped into memory."""

    def __init__(self, files: Mapping[str, Path], tensors: Mapping[str, TrunkTensor]) -> None:
        """files: by the key of StarterManifest.trunks."""
        self._content = {name: np.memmap(path, mode="r") for name, path in files.items()}
        self._tensors = tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> FloatArray:
        tensor = self._tensors[name]
        size = 4 * int(np.prod(tensor.shape))
        content = self._content[tensor.file][tensor.offset : tensor.offset + size]
        # copied: the offset need not be a multiple of 4
        return np.frombuffer(content.tobytes(), dtype="<f4").reshape(tensor.shape).transpose(tensor.axes)
