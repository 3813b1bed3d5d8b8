"""Changes: whether anything a model is made from differs from what the registered versions were made from.

Hashes are compared, never times: a clock that jumps makes nothing look new or old.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from image_finder.components.records.base import Record
from image_finder.model_registry import names

_MEANING = {
    names.DATA_FINGERPRINT: "data",
    names.CODE_SHA256: "code",
    names.CONFIG_SHA256: "configuration",
    names.ENVIRONMENT_SHA256: "installed packages",
}


class Fingerprints(Record):
    """What a training run is made from, as hex hashes; field names are the tags of a registered version."""

    data_fingerprint: str
    code_sha256: str
    config_sha256: str
    environment_sha256: str


class Known(NamedTuple):
    """A registered version: what it was made from is among its tags."""

    version: str
    tags: Mapping[str, str]
    decided: bool  # the rule or a person has decided whether it becomes champion


class Changes(Record):
    """What differs from a registered version; when nothing does, a training would make the same model again."""

    since: str | None  # the version compared with: a decided one that is the same, else the newest; None: there is none
    what: tuple[str, ...]
    undecided: bool  # the run that registered the version did not come to its decision

    @property
    def any(self) -> bool:
        """Whether there is something to do."""
        return self.since is None or bool(self.what) or self.undecided

    @property
    def text(self) -> str:
        """In a line."""
        if self.since is None:
            return "no version is registered yet"
        told = f"{', '.join(self.what) or 'nothing'} changed since version {self.since}"
        return f"{told}, about which no decision was made" if self.undecided else told


def compare(now: Fingerprints, versions: Sequence[Known]) -> Changes:
    """What differs between now and the registered versions, newest first: nothing if one was made from just this and decided.

    Data may go back to what they were: the training would take that version from the cache. A tag that is missing counts
    as changed.
    """
    if not versions:
        return Changes(since=None, what=(), undecided=False)
    decided = (each for each in versions if each.decided and not _differences(now, each))
    found = next(decided, versions[0])
    return Changes(since=found.version, what=_differences(now, found), undecided=not found.decided)


def _differences(now: Fingerprints, known: Known) -> tuple[str, ...]:
    hashes = now.model_dump()
    return tuple(meaning for tag, meaning in _MEANING.items() if hashes[tag] != known.tags.get(tag))
