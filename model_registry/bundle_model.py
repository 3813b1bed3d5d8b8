"""Bundle model: the code with which MLflow loads a registered bundle ("models from code")."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from image_finder.components.bundle.bundle import Bundle
from image_finder.components.bundle.encoder import OnnxEncoder
from image_finder.components.errors import ConfigError, FinderError, QueryError

# Key of MLflow's model_config (load_model, `mlflow models serve --model-config`): the directory of the files that
# image_path may name. The registered value is "": no file is opened.
IMAGE_DIRECTORY = "image_directory"
_COLUMNS = ("text", "image", "image_path")


class BundleModel(PythonModel):
    """Encodes a table with the columns `text`, `image` and `image_path`, one value in each row."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the bundle. Raises BundleError, ConfigError."""
        self._directory = _directory(context.model_config or {})
        self._encoder = OnnxEncoder(Bundle.open(Path(context.artifacts["bundle"])))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, object] | None = None,
    ) -> NDArray[np.float32]:
        """Unit vectors, (rows, embedding_dim) float32.

        image: the bytes of a file, also in base64. image_path: a file in image_directory of model_config, absolute or
        relative, after links are resolved. Raises MlflowException with INVALID_PARAMETER_VALUE, so that a scoring server
        returns the message, for a row without exactly one value, a forbidden path and an unreadable image.
        """
        try:
            return self._vectors(model_input)
        except FinderError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error

    def _vectors(self, table: pd.DataFrame) -> NDArray[np.float32]:
        texts, images, paths = (_column(table, name) for name in _COLUMNS)
        for row, values in enumerate(zip(texts, images, paths, strict=True)):
            given = [name for name, value in zip(_COLUMNS, values, strict=True) if value is not None]
            if len(given) != 1:
                found = " and ".join(given) or "none"
                raise QueryError(f"row {row} needs one of {', '.join(_COLUMNS)}, got {found}")
        vectors = np.empty((len(table), self._encoder.embedding_dim), np.float32)
        text_rows = [row for row, text in enumerate(texts) if text is not None]
        vectors[text_rows] = self._encoder.encode_text([str(texts[row]) for row in text_rows])
        image_rows = [row for row, text in enumerate(texts) if text is None]
        sources = (
            _bytes_of(images[row], row) if paths[row] is None else self._file_of(str(paths[row]), row)
            for row in image_rows
        )
        vectors[image_rows] = self._encoder.encode_image(self._encoder.preprocess.load(source) for source in sources)
        return vectors

    def _file_of(self, path: str, row: int) -> Path:
        """The resolved path of a row. Raises QueryError unless it is in the configured directory."""
        if self._directory is None:
            raise QueryError(
                f"image_path in row {row}: this model opens no files; send the bytes as `image`, or load the model with "
                f"model_config {IMAGE_DIRECTORY}"
            )
        try:
            found = (self._directory / path).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL
            raise QueryError(f"image_path in row {row} cannot be resolved: {path[:200]!r}") from error
        if not found.is_relative_to(self._directory):
            raise QueryError(f"image_path in row {row} is not below {self._directory}: {path[:200]!r}")
        return found


def _directory(config: Mapping[str, Any]) -> Path | None:
    value = config.get(IMAGE_DIRECTORY) or None
    if value is None:
        return None
    if not isinstance(value, str) or not Path(value).is_dir():
        raise ConfigError(f"model_config {IMAGE_DIRECTORY} is not a directory: {value!r}; name one, or leave it out")
    return Path(value).resolve()


def _column(table: pd.DataFrame, name: str) -> list[str | bytes | None]:
    if name not in table:
        return [None] * len(table)
    return [value if isinstance(value, str | bytes) else None for value in table[name]]


def _bytes_of(value: str | bytes | None, row: int) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return base64.b64decode("".join((value or "").split()), validate=True)
    except (binascii.Error, ValueError):
        raise QueryError(
            f"image in row {row} is neither bytes nor base64: {str(value)[:60]!r}; files go into image_path"
        ) from None


mlflow.models.set_model(BundleModel())
