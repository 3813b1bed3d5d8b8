"""Bundle model: the code MLflow loads a registered bundle with ("models from code"); unit vectors of texts or pictures."""

import base64
import binascii
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from components.bundle import Bundle
from components.errors import QueryError
from components.search.onnx_encoder import OnnxEncoder

_LONGEST_PATH = 4096  # characters, Linux's limit; a longer string can only be a picture in base64


class BundleModel(PythonModel):
    """Encodes a table with the columns `text` and `image`, one of them filled in each row."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the bundle that was registered with this code."""
        self._encoder = OnnxEncoder(Bundle.open(Path(context.artifacts["bundle"])))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, object] | None = None,
    ) -> NDArray[np.float32]:
        """Unit vectors, (rows, embedding_dim) float32. image: a file's path, its bytes, or these in base64.

        Raises QueryError for a row without text and image or with both, PictureError for an unreadable picture.
        """
        texts, images = (_column(model_input, name) for name in ("text", "image"))
        vectors = np.empty((len(model_input), self._encoder.embedding_dim), np.float32)
        for row, (text, image) in enumerate(zip(texts, images, strict=True)):
            if (text is None) == (image is None):
                raise QueryError(f"row {row} needs either text or image, got {'neither' if text is None else 'both'}")
        text_rows = [row for row, text in enumerate(texts) if text is not None]
        if text_rows:
            vectors[text_rows] = self._encoder.encode_text([str(texts[row]) for row in text_rows])
        for row, image in enumerate(images):
            if image is not None:
                pixels = self._encoder.preprocess.load(_picture(image, row))
                vectors[row] = self._encoder.encode_image(pixels[None])[0]
        return vectors


def _column(table: pd.DataFrame, name: str) -> list[object]:
    if name not in table:
        return [None] * len(table)
    return [value if isinstance(value, str | bytes) else None for value in table[name]]


def _picture(value: object, row: int) -> Path | bytes:
    if isinstance(value, bytes):
        return value
    text = str(value)
    if len(text) < _LONGEST_PATH and Path(text).is_file():
        return Path(text)
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise QueryError(f"image in row {row} is neither a file nor base64: {text[:60]!r}") from None


mlflow.models.set_model(BundleModel())
