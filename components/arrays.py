"""Array types of the whole project; functions state their shapes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]  # embeddings: (n, embedding_dim), rows of unit length unless a docstring says otherwise
IntArray = NDArray[np.int64]
Rows = NDArray[np.int64]  # row numbers
Mask = NDArray[np.bool_]

FloatArray = NDArray[np.float32]
FloatMatrix = NDArray[np.floating[Any]]
FloatVector = NDArray[np.floating[Any]]
IntVector = NDArray[np.integer[Any]]
