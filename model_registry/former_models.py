"""Former models: updates the stored code of models that were registered while the packages had other import names.

MLflow runs the code that it stored with a model. Code of versions before 2026-11-30 imports `components`, which is
image_finder.components now.
"""

import contextlib
import re
from pathlib import Path

from image_finder.components.errors import StorageError
from image_finder.components.storage import write_bytes_atomically

_CODE = Path(__file__).with_name("bundle_model.py")
_FORMER_IMPORT = re.compile(rb"^from components\.", re.MULTILINE)


def renew_code(artifacts: Path) -> None:
    """Replace the code of former models by today's, in a directory of MLflow that can be written."""
    for path in artifacts.glob(f"models/*/artifacts/{_CODE.name}"):
        if _FORMER_IMPORT.search(path.read_bytes()):
            with contextlib.suppress(StorageError):
                write_bytes_atomically(path, _CODE.read_bytes())
