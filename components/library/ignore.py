"""Ignore rules: `.finderignore` files in gitignore form, nested as git nests them; knows nothing of images."""

import codecs
import logging
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from pathspec import GitIgnoreSpec
from pathspec.pattern import RegexPattern
from pathspec.patterns.gitignore import GitIgnorePatternError

from image_finder.components.errors import StorageError

logger = logging.getLogger(__name__)

IGNORE_FILE = ".finderignore"
MAX_IGNORE_BYTES = 1 << 20
# Byte-order marks as editors of Windows write them. UTF-32 comes first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
_NO_BREAK = "\ufffd"  # in place of a line break, which a dot of a regular expression does not match
_ANY_FOLDER = re.compile(".+/")
_ANY_ENTRY = re.compile(".+")


class _Rule(NamedTuple):
    regex: re.Pattern[str]
    ignores: bool  # False: the line began with "!"


class _Level(NamedTuple):
    prefix: str  # folder of the file, relative to the root: "" or ending in "/"
    rules: tuple[_Rule, ...]  # in reverse order: the last line that matches decides


class IgnoreRules:
    """The rules of one folder: those of its file, then those of the folders above."""

    def __init__(self, levels: Sequence[_Level] = ()) -> None:
        self._levels = tuple(levels)  # deepest first

    def __bool__(self) -> bool:
        return bool(self._levels)

    def extended(self, prefix: str, content: bytes) -> "IgnoreRules":
        """These rules preceded by those of a `.finderignore` in the folder `prefix`.

        prefix: "" or ending in "/". content: bytes of the file. Logs and skips invalid patterns. Raises StorageError for
        content that is not text.
        """
        rules = []
        for number, line in enumerate(_decoded(content).splitlines(), start=1):
            try:
                rules += _compiled(line)
            except (GitIgnorePatternError, re.error):
                logger.warning("%s%s line %d is not a pattern and is left out: %s", prefix, IGNORE_FILE, number, line)
        prefix = unicodedata.normalize("NFC", prefix.replace("\n", _NO_BREAK))
        return IgnoreRules((_Level(prefix, tuple(reversed(rules))), *self._levels)) if rules else self

    def ignores(self, relative: str) -> bool:
        """Whether a file, or a folder (ending in "/"), is ignored. relative: POSIX path from the root.

        The folders above it must have been checked, since nothing below an ignored folder is scanned.
        """
        relative = unicodedata.normalize("NFC", relative.replace("\n", _NO_BREAK))
        for prefix, rules in self._levels:
            own = relative[len(prefix) :]
            for regex, ignores in rules:
                found = regex.match(own)
                # Folders above were checked before; only a match of the whole entry counts.
                if found is not None and found.end() == len(own):
                    return ignores
        return False


def _decoded(content: bytes) -> str:
    """Text of a rules file in composed form (NFC). Bytes that are not UTF-8 stay, to match equal file names."""
    encoding = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "")
    try:
        text = content.decode(encoding) if encoding else content.decode("utf-8", "surrogateescape")
    except UnicodeDecodeError as error:
        raise StorageError(f"its {IGNORE_FILE} is damaged: {error}; save it as UTF-8") from error
    if "\0" in text:  # UTF-16 without a mark, or no text
        raise StorageError(f"its {IGNORE_FILE} is no text in UTF-8; save it as UTF-8")
    return unicodedata.normalize("NFC", text)


def _compiled(line: str) -> list[_Rule]:
    # "a/**" means everything in a, not a itself; pathspec matches both.
    line = f"{line}/*" if line.endswith("/**") else line
    patterns = GitIgnoreSpec.from_lines([line]).patterns
    return [
        _Rule(_whole(pattern.regex), pattern.include)
        for pattern in patterns
        if isinstance(pattern, RegexPattern) and pattern.regex is not None and pattern.include is not None
    ]


def _whole(regex: re.Pattern[str]) -> re.Pattern[str]:
    """A regex that matches whole entries: pathspec shortens "*" and "*/" to "." and "/"."""
    if regex.pattern.startswith("^"):
        return regex
    return _ANY_FOLDER if "/" in regex.pattern else _ANY_ENTRY
