"""Prompts: the sentences a label or a very short text stands for; knows nothing of models.

A model that was trained on sentences reads a lone word badly; the mean of a few sentences that hold it is read well
(Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision", section 3.1.4).
"""

TEMPLATES = ("{}", "a {}", "a photo of a {}", "there is a {} in the picture", "a {} outside")
_SHORT_WORDS = 2


def prompts_of(label: str, templates: tuple[str, ...] = TEMPLATES) -> list[str]:
    """The label in each template."""
    return [template.replace("{}", label) for template in templates]


def expand(text: str) -> list[str]:
    """The texts whose mean vector stands for a query: of one or two words its prompts, else the text itself."""
    return prompts_of(text) if len(text.split()) <= _SHORT_WORDS else [text]
