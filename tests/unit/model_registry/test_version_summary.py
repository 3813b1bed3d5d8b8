"""First sentence of a version's description: facts of the report, then the outcome of a ledger entry."""

from datetime import UTC, datetime

import pytest

from image_finder.model_registry.ledger.entries import FIRST, Event, Head, seal
from image_finder.model_registry.version_summary import LONGEST, facts, outcome, replaced, sentence
from tests.support.tiny_bundle import retrieval_report, write_tiny_bundle

DAY = datetime(2026, 11, 30, 12, tzinfo=UTC)


def entry(kind, *, reasons=("better",), **changes):
    event = Event(kind=kind, from_version="1", to_version="2", reasons=reasons, **changes)
    return seal("finder", event, head=Head(0, FIRST), at=DAY, actor="ann@lab")


def test_the_facts_name_recall_of_every_set_size_data_and_date(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "bundle")
    report = retrieval_report(0.32, extra_sets={"coco": retrieval_report(0.49, split="coco")})
    found = facts(report, bundle, DAY)
    assert found.startswith("Finds 32 of 100 images first on scratch val and 49 of 100 images first on scratch coco (")
    assert found.endswith(" MB); trained on scratch on 2026-11-30")


@pytest.mark.parametrize(
    ("kind", "changes", "now", "before"),
    [
        (
            "moved",
            {},
            "promoted on 2026-11-30 because: better",
            "champion until 2026-11-30, when version 2 replaced it",
        ),
        (
            "forced",
            {"reasons": ("forced: a fair",)},
            "promoted by force on 2026-11-30 because: a fair",
            "champion until 2026-11-30, when version 2 replaced it",
        ),
        (
            "rollback",
            {},
            "champion again since 2026-11-30 because: better",
            "rolled back to version 2 on 2026-11-30 because: better",
        ),
        ("decision", {"measurements": {"promoted": 0.0}}, "not promoted on 2026-11-30 because: better", ""),
        ("decision", {"measurements": {"promoted": 1.0}}, "", ""),
        ("index", {}, "", ""),
    ],
)
def test_an_entry_says_what_became_of_both_versions(kind, changes, now, before):
    found = entry(kind, **changes)
    assert (outcome(found), replaced(found)) == (now, before)


def test_the_sentence_is_never_longer_than_its_part_of_the_description():
    text = sentence("Finds 32 of 100 images first", outcome(entry("moved", reasons=("x" * 2000,))))
    assert len(text) == LONGEST
    assert text.endswith("....")
