"""Language of product and documents: banned words, first sentences of help texts, wrong plurals.

The words are those of the house style: paraphrases of terms that the field has, and words with two meanings here.
"""

import io
import re
import subprocess
import tokenize

import click
import pytest

from image_finder.components.app.cli import main
from tests.support.checkout import CHECKOUT

INSTEAD = {
    r"pictures?": "image",
    r"told|tells?(?! (?:\w+ )?apart)|telling": "reports, prints, returns",
    r"whoever": "name the person or program",
    r"in force": "current",
    r"of (?:its|their) own": "own, separate",
    r"besides": "also",
    r"unwanted": "not",
    r"go(?:es)? on|went on|going on": "resumes, continues",
    r"(?:is|are) at it": "is in progress",
    r"be had|is had": "is available",
    r"in vain": "without a result",
    r"contests?": "comparison",
    r"unfolded": "duplicates: show",
    r"model in the box": "starter model",
    r"(?<![\d,.])(?<!of )1 (?:files|images|pictures|captions|folders|seconds|versions|rows|sources|queries)": "singular",
}
PATTERN = re.compile("|".join(rf"\b(?:{words})\b" for words in INSTEAD))
# Data, not language of the product: captions, the words in them, and prompts; and this list.
DATA = {
    "components/starter/model/starter.json",
    "components/captions/vocabulary.py",
    "components/demo/scenes.py",
    "components/search/prompts.py",
    "tests/repo/test_language.py",
    # former names of fields, files and slices, and messages about them
    "components/configs/drift.py",
    "components/former_names.py",
    "components/library/former_home.py",
    "tests/unit/library/test_former_home.py",
    "tests/unit/metrics/test_comparison.py",
}
FILES = [
    name
    for name in subprocess.run(
        ["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if re.search(r"\.(py|md|yaml|js|html|css|toml|Dockerfile)$", name) and name not in DATA and name != "CHANGELOG.md"
]


def readable(name):
    """Lower-case text of a file that people read: of a program its comments and strings."""
    source = (CHECKOUT / name).read_text(encoding="utf-8")
    if not name.endswith(".py"):
        return source.lower()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return "\n".join(each.string for each in tokens if each.type in (tokenize.COMMENT, tokenize.STRING)).lower()


@pytest.mark.parametrize("top", sorted({name.split("/")[0] for name in FILES}))
def test_no_banned_word(top):
    files = [name for name in FILES if name.split("/")[0] == top]
    found = [f"{name}: {match[0]}" for name in files for match in PATTERN.finditer(readable(name))]
    assert found == [], INSTEAD


def commands(group, context):
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield f"{context.info_name} {name}", command
        if isinstance(command, click.Group):
            yield from commands(
                command, click.Context(command, parent=context, info_name=f"{context.info_name} {name}")
            )


@pytest.mark.parametrize(
    ("name", "command"), list(commands(main, click.Context(main, info_name="image-finder"))), ids=str
)
def test_the_first_sentence_of_a_help_text_is_shown_whole_in_a_list(name, command):
    summary = (command.help or "").split("\n\n")[0].replace("\n", " ").split(". ")[0].strip()
    assert 0 < len(summary) <= 60, summary
