"""Materializer of checkpoints, apart from the others because a checkpoint brings torch (3 s to import)."""

from typing import Any, ClassVar

from image_finder.components.encoders.checkpoint import MANIFEST, Checkpoint
from image_finder.steps.materializers import DirectoryMaterializer


class CheckpointMaterializer(DirectoryMaterializer):
    """A trained dual encoder."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Checkpoint,)
    MANIFEST = MANIFEST
