"""Changes: what differs between the inputs of a training and those of the registered versions.

Compares hashes, not times, so a wrong clock has no effect.
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
    """Hex hashes of a training's inputs; field names are the tags of a registered version."""

    data_fingerprint: str
    code_sha256: str
    config_sha256: str
    environment_sha256: str


class KnownVersion(NamedTuple):
    version: str
    tags: Mapping[str, str]
    decided: bool  # the rule or a person has decided whether it becomes champion


class Changes(Record):
    """Differences from a registered version; without any, training would repeat that model."""

    since: str | None  # version compared with: an identical decided one, else the newest; None if there is none
    changed: tuple[str, ...]
    undecided: bool  # the run that registered the version ended before its decision

    @property
    def any(self) -> bool:
        """Whether a training is needed."""
        return self.since is None or bool(self.changed) or self.undecided

    @property
    def text(self) -> str:
        if self.since is None:
            return "no version is registered yet"
        text = f"{', '.join(self.changed) or 'nothing'} changed since version {self.since}"
        return f"{text}, which has no promotion decision" if self.undecided else text


def compare(now: Fingerprints, versions: Sequence[KnownVersion]) -> Changes:
    """Compare with the registered versions, newest first.

    There are no changes if any decided version has the same inputs, also an older one: training would take it from the
    cache. A missing tag counts as changed.
    """
    if not versions:
        return Changes(since=None, changed=(), undecided=False)
    identical = (each for each in versions if each.decided and not _differences(now, each))
    found = next(identical, versions[0])
    return Changes(since=found.version, changed=_differences(now, found), undecided=not found.decided)


def _differences(now: Fingerprints, known: KnownVersion) -> tuple[str, ...]:
    hashes = now.model_dump()
    return tuple(meaning for tag, meaning in _MEANING.items() if hashes[tag] != known.tags.get(tag))
