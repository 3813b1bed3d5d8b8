"""Whether a published index belongs to the champion version; needs no registry.

<home>/champion.json names the champion of each model and the bundles of its versions. It is written before the champion
changes, so that `info` and the server can report that the new champion's index is still missing.
"""

import shlex
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from image_finder.components.configs import RegistryConfig
from image_finder.components.home import HOME_VARIABLE, home_root
from image_finder.components.index.generations import is_published_root
from image_finder.components.index.publish import current_bundle_sha256
from image_finder.components.records.base import Record
from image_finder.components.storage import write_bytes_atomically

NOTE = "champion.json"
_LIBRARY, _INDEX = "library", "index"


class ChampionNote(Record):
    """Champion of a model. bundles: version -> SHA-256 of its bundle."""

    model: str
    version: str
    bundles: dict[str, str]


_Notes = TypeAdapter(dict[str, ChampionNote])


class PendingChange(Record):
    """An index that belongs to another version than the champion."""

    home: Path
    index_version: str
    champion_version: str
    command: str  # that completes the change

    def text(self, *, with_home: bool = True) -> str:
        """A message with the commands. with_home: include the path of a non-default home."""
        variable = f"{HOME_VARIABLE}={shlex.quote(str(self.home))} "
        prefix = variable if with_home and self.home != home_root() else ""
        return (
            f"The current index belongs to version {self.index_version}; version {self.champion_version} is champion. "
            f"Complete with: {prefix}image-finder {self.command}"
        )


def note_champion(home: Path, note: ChampionNote) -> None:
    """Record the new champion if the home has a published library. Raises StorageError."""
    if is_published_root(home / _LIBRARY / _INDEX):
        notes = {**_read(home), note.model: note}
        write_bytes_atomically(home / NOTE, _Notes.dump_json(notes, indent=2))


def pending_change(index: Path, *, bundle: str | None = None, note: ChampionNote | None = None) -> PendingChange | None:
    """The unfinished change of champion for a published index; None if there is none.

    bundle: SHA-256 of the index's bundle; None reads the index. note: the registry's champion; None: of champion.json.
    """
    home = index.parent.parent if index.parent.name == _LIBRARY else index.parent
    bundle = current_bundle_sha256(index) if bundle is None else bundle
    for each in [note] if note else _read(home).values():
        version = next((name for name, sha256 in each.bundles.items() if sha256 == bundle), None)
        champion = each.bundles.get(each.version)
        if version is not None and champion is not None and champion != bundle:
            model = "" if each.model == RegistryConfig().model_name else f" --model {shlex.quote(each.model)}"
            return PendingChange(
                home=home,
                index_version=version,
                champion_version=each.version,
                command=f"models promote {each.version}{model}",
            )
    return None


def _read(home: Path) -> dict[str, ChampionNote]:
    try:
        return _Notes.validate_json((home / NOTE).read_bytes())
    except (OSError, ValidationError):  # absent or damaged: the next promotion rewrites it
        return {}
