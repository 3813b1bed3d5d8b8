"""Manifest: the sealed JSON file that describes a directory; knows nothing of its other files."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import ValidationError

from image_finder.components.configs import first_fault
from image_finder.components.errors import FinderError
from image_finder.components.records.base import Record
from image_finder.components.storage import sealed, unsealed


class Manifest(Record):
    """Base of the manifests of a checkpoint, a bundle, a starter model and an index."""

    file_name: ClassVar[str]
    artefact: ClassVar[str]  # with its article
    version: ClassVar[int]  # of the format
    error: ClassVar[type[FinderError]]
    missing: ClassVar[str]  # message without the directory
    repair: ClassVar[str]  # advice for a damaged file
    upgrade: ClassVar[str]  # advice for an older format

    format_version: int

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of a directory. Raises cls.error if it is missing, damaged or of another format."""
        path = folder / cls.file_name
        if not path.is_file():
            raise cls.error(cls.missing.format(folder))
        try:
            values, _ = unsealed(path.read_bytes())
            found = values.get("format_version")
            if isinstance(found, int) and found != cls.version:
                noun = cls.artefact.split()[-1]
                advice = cls.upgrade if found < cls.version else "install a newer text-guided-image-finder"
                raise cls.error(f"{noun} {folder} has format {found}, this version reads {cls.version}; {advice}")
            return cls.model_validate(values)
        except ValidationError as error:
            raise cls.error(f"{path} is not {cls.artefact} manifest: {first_fault(error)}; {cls.repair}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise cls.error(f"{path} is not {cls.artefact} manifest, or damaged: {error}; {cls.repair}") from error

    def write(self, folder: Path) -> None:
        (folder / self.file_name).write_text(sealed(self.model_dump_json()), encoding="utf-8", newline="\n")
