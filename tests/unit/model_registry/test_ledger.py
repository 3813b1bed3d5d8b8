"""Every kind of damage to the chain of hashes is reported, on entries in memory."""

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from image_finder.components.records.promotion import PromotionCheck, PromotionDecision
from image_finder.components.records.retrieval import Interval
from image_finder.model_registry.ledger.entries import FIRST, FORMAT, Event, Head, display, of_decision, seal, title
from image_finder.model_registry.ledger.state import current_rollback, state_of
from image_finder.model_registry.ledger.verification import Stored, verify

START = datetime(2026, 1, 5, 3, 0, 0, 123000, tzinfo=UTC)


def chain(*events, step=timedelta(days=7)):
    """Entries, and the head after them."""
    head, entries = Head(0, FIRST), []
    for number, event in enumerate(events):
        entry = seal("finder", event, head=head, at=START + number * step, actor="ann@lab")
        entries.append(entry)
        head = Head(entry.n, entry.sha256)
    return entries, head


def stored(entry, **changes):
    values = {
        "run_id": f"run{entry.n}",
        "deleted": False,
        "number": f"{entry.n:08d}",
        "text": entry.text,
        "sha256": entry.sha256,
        "display": display(entry),
        "name": title(entry),
        "milliseconds": entry.milliseconds,
    }
    return Stored(**{**values, **changes})


def moves(n):
    """n promotions, each over the one before."""
    versions = [None, *map(str, range(1, n + 1))]
    return [
        Event(kind="moved", from_version=old, to_version=new, reasons=("better",)) for old, new in pairwise(versions)
    ]


def faults(kept, head):
    return [(fault.n, fault.text.partition(" (run")[0]) for fault in verify("finder", kept, head).faults]


@pytest.fixture
def five():
    return chain(*moves(5))


def test_an_intact_ledger_has_no_fault_and_returns_every_entry(five):
    entries, head = five
    reading = verify("finder", [stored(each) for each in reversed(entries)], head)
    assert reading.faults == ()
    assert list(reading.entries) == entries
    assert [each.previous_sha256 for each in entries] == [FIRST, *(each.sha256 for each in entries[:-1])]


def test_an_entry_cut_in_half_is_reported_and_the_others_are_returned(five):
    entries, head = five
    kept = [stored(each) for each in entries]
    kept[2] = kept[2]._replace(text=kept[2].text[: len(kept[2].text) // 2])
    reading = verify("finder", kept, head)
    assert [each.n for each in reading.entries] == [1, 2, 4, 5]
    assert faults(kept, head) == [(3, "the text of entry 3 was cut or edited: its hash differs from the recorded one")]


def test_an_edited_entry_is_reported_even_if_its_hash_was_recomputed(five):
    entries, head = five
    forged = seal(
        "finder", moves(3)[2].model_copy(update={"reasons": ("a friend",)}), head=Head(2, entries[1].sha256),
        at=START + timedelta(days=14), actor="ann@lab",
    )  # fmt: skip
    kept = [stored(each) for each in entries]
    kept[2] = stored(forged)
    expected = "entry 4 does not follow the stored entry 3: one of them was rewritten or exchanged"
    assert faults(kept, head) == [(4, expected)]


def test_a_deleted_entry_is_reported(five):
    entries, head = five
    kept = [stored(each) for each in entries if each.n != 2]
    assert faults(kept, head) == [(2, "entry 2 is missing; entry 3 or a later one exists")]


def test_entries_removed_at_the_end_are_reported(five):
    entries, head = five
    kept = [stored(each) for each in entries[:3]]
    assert [n for n, _ in faults(kept, head)] == [4, 5]
    assert faults([], head)[-1] == (5, "entry 5 is missing; the head names entry 5 as the last")


def test_exchanged_entries_are_named(five):
    entries, head = five
    second, third = entries[1], entries[2]
    kept = [stored(each) for each in entries]
    kept[1] = stored(third, run_id="run2", number="00000002")
    kept[2] = stored(second, run_id="run3", number="00000003")
    expected = faults(kept, head)
    assert (2, "entry 3 of finder is stored as entry 2 of finder") in expected
    assert (3, "entry 2 of finder is stored as entry 3 of finder") in expected


def test_a_removed_or_reset_head_is_a_fault_and_a_head_one_entry_behind_is_not(five):
    entries, head = five
    kept = [stored(each) for each in entries]
    assert faults(kept, None) == [
        (None, "the head of the ledger was removed or edited, so missing entries at the end cannot be detected")
    ]
    assert faults(kept, Head(4, entries[3].sha256)) == []  # a writer was killed before it updated the head
    assert faults(kept, Head(3, entries[2].sha256)) == [
        (None, "the head of the ledger was reset to entry 3, but there are 5 entries")
    ]
    assert faults(kept, Head(5, "f" * 64)) == [(None, "the head of the ledger names another entry 5 (ffffffffffff)")]
    assert verify("finder", [], None).faults == ()
    assert Head.parse(str(head)) == head
    assert Head.parse("5:short") is None


def test_two_entries_of_one_number_are_a_fault(five):
    entries, head = five
    kept = [stored(each) for each in entries]
    other = seal("finder", moves(1)[0], head=Head(4, entries[3].sha256), at=START + timedelta(days=99), actor="b@lab")
    assert faults([*kept, stored(other, run_id="run6")], head) == [(5, "there are two entries 5, run5 and run6")]


def test_what_mlflow_shows_is_compared_with_the_text(five):
    entries, head = five
    kept = [stored(each) for each in entries]
    kept[0] = kept[0]._replace(display={**kept[0].display, "reasons": "worse"}, name="nothing", milliseconds=0)
    assert faults(kept, head) == [(1, "MLflow shows an edited entry 1 (reasons, name, time); its text is intact")]


def test_an_entry_marked_as_deleted_is_read_and_reported(five):
    entries, head = five
    kept = [stored(each) for each in entries]
    kept[3] = kept[3]._replace(deleted=True)
    reading = verify("finder", kept, head)
    assert [each.n for each in reading.entries] == [1, 2, 3, 4, 5]
    assert faults(kept, head) == [
        (4, "entry 4 was deleted in MLflow; restore it with `mlflow runs restore --run-id run4`")
    ]


def test_an_entry_of_another_models_ledger_is_a_fault(five):
    entries, head = five
    stranger = seal("other", moves(1)[0], head=Head(0, FIRST), at=START, actor="ann@lab")
    kept = [stored(stranger), *(stored(each) for each in entries[1:])]
    assert (1, "entry 1 of other is stored as entry 1 of finder") in faults(kept, head)


def test_a_clock_that_jumps_back_changes_neither_order_nor_validity():
    entries, head = chain(*moves(4), step=timedelta(days=-3))
    reading = verify("finder", [stored(each) for each in entries], head)
    assert reading.faults == ()
    assert [each.n for each in reading.entries] == [1, 2, 3, 4]
    assert reading.entries[0].at > reading.entries[3].at


def test_a_field_of_a_newer_version_is_hashed_and_ignored(five):
    import json

    from image_finder.components.storage import sha256_of_bytes

    entries, _ = five
    newer = json.dumps({**json.loads(entries[0].text), "format": FORMAT + 1, "mood": "good"})
    digest = sha256_of_bytes(newer.encode())
    reading = verify("finder", [stored(entries[0], text=newer, sha256=digest, display={})], Head(1, digest))
    assert reading.faults == ()
    assert reading.entries[0].to_version == "1"


def test_the_format_of_an_entry_is_frozen():
    """Existing ledgers have text and display of format 1: changing either needs a new FORMAT."""
    decision = PromotionDecision(
        promoted=True,
        challenger_version="7",
        champion_version="5",
        reasons=("gain +0.0120",),
        checks=(PromotionCheck(name="gain", measured=0.012, required="at least 0.0000", passed=True, detail="d"),),
        challenger_mean_recall=0.542,
        champion_mean_recall=0.53,
        gain=0.012,
        gain_interval=Interval(low=0.001, high=0.023),
    )
    event = of_decision(decision, data_version="0123456789ab", code_version="c0de")
    entry = seal("finder", event, head=Head(11, "a" * 64), at=START, actor="run training-x (abc)")
    assert FORMAT == 1
    assert entry.text == (
        '{"actor":"run training-x (abc)","alias":"champion","at":"2026-01-05T03:00:00.123+00:00","checks":[{"detail":"d",'
        '"measured":0.012,"name":"gain","passed":true,"required":"at least 0.0000"}],"code_version":"c0de",'
        '"data_version":"0123456789ab","format":1,"from_version":"5","kind":"decision","measurements":'
        '{"challenger_mean_recall":0.542,"champion_mean_recall":0.53,"gain":0.012,"gain_high":0.023,"gain_low":0.001,'
        '"promoted":1.0},"model":"finder","n":12,"previous_sha256":"' + "a" * 64 + '","reasons":["gain +0.0120"],'
        '"to_version":"7"}'
    )
    assert title(entry) == "0012 v7 is to be promoted over v5, gain +1.2 points"
    assert display(entry) == {
        "kind": "decision",
        "alias": "champion",
        "from": "v5",
        "to": "v7",
        "actor": "run training-x (abc)",
        "reasons": "gain +0.0120",
        "data_version": "0123456789ab",
        "code_version": "c0de",
        "mlflow.note.content": (
            "**0012 v7 is to be promoted over v5, gain +1.2 points**, 2026-01-05T03:00:00.123+00:00 by run training-x (abc)\n"
            "- gain +0.0120\n\n| rule | measured | required | passed |\n| --- | --- | --- | --- |\n"
            "| gain | 0.012 | at least 0.0000 | yes |\n\n- challenger_mean_recall: 0.542\n- champion_mean_recall: 0.53\n"
            "- gain: 0.012\n- gain_high: 0.023\n- gain_low: 0.001\n- promoted: 1"
        ),
    }


def test_nan_and_infinity_are_stored_as_text():
    decision = PromotionDecision.model_construct(
        promoted=False, challenger_version="2", champion_version=None, reasons=(), checks=(), forced=False,
        challenger_mean_recall=math.nan, champion_mean_recall=None, gain=math.inf, gain_interval=None,
    )  # fmt: skip
    assert of_decision(decision).measurements == {
        "challenger_mean_recall": "nan", "champion_mean_recall": None, "gain": "inf", "gain_low": None,
        "gain_high": None, "promoted": 0.0,
    }  # fmt: skip


def test_the_state_follows_promotions_rollbacks_and_outside_changes():
    events = [
        Event(kind="registered", alias="challenger", to_version="1"),
        Event(kind="moved", to_version="1"),
        Event(kind="registered", alias="challenger", from_version="1", to_version="2"),
        Event(kind="moving", from_version="1", to_version="2"),
    ]
    state = state_of(chain(*events)[0])
    assert (state.champion, state.previous, state.challenger, state.last_registered) == ("1", None, "2", 2)
    assert state.open_move is not None
    events.append(Event(kind="forced", from_version="1", to_version="2"))
    events.append(Event(kind="rollback", from_version="2", to_version="1"))
    state = state_of(chain(*events)[0])
    assert (state.champion, state.previous, state.open_move) == ("1", "2", None)
    events.append(Event(kind="outside", alias="champion", from_version="1", to_version=None))
    state = state_of(chain(*events)[0])
    assert (state.champion, state.last_champion, state.had_champion) == (None, "1", True)
    events.append(Event(kind="rollback", to_version="2"))
    assert state_of(chain(*events)[0]).previous is None  # it was version 2 itself


ROLLED_BACK = (
    Event(kind="moved", to_version="1"),
    Event(kind="moved", from_version="1", to_version="2"),
    Event(kind="rollback", from_version="2", to_version="1"),
)


@pytest.mark.parametrize(
    "later",
    [
        (Event(kind="decision", from_version="1", to_version="2"), Event(kind="skipped")),
        (Event(kind="moving", from_version="1", to_version="2"), Event(kind="abandoned", to_version="2")),
        (Event(kind="outside", alias="previous", from_version="2"), Event(kind="moved", to_version="4")),
    ],
)
def test_a_rollback_is_not_ended_by_changes_of_other_versions_and_aliases(later):
    entries, _ = chain(*ROLLED_BACK, *later)
    assert current_rollback(entries, {"2"}) == current_rollback(entries, {"2", "3"}) == entries[2]
    assert current_rollback(entries, {"1"}) is current_rollback(entries, {"3"}) is None


@pytest.mark.parametrize("kind", ["rollback", "forced", "outside"])
def test_a_rollback_ends_when_the_version_or_an_equal_one_is_champion_again(kind):
    back = Event(kind=kind, from_version="1", to_version="2")
    replaced = Event(kind="moved", from_version="2", to_version="3")
    for events in ((back,), (back, replaced)):
        entries, _ = chain(*ROLLED_BACK, *events)
        assert current_rollback(entries, {"2"}) is current_rollback(entries, {"2", "5"}) is None
    entries, _ = chain(*ROLLED_BACK, back, Event(kind="rollback", from_version="2", to_version="1"))
    assert current_rollback(entries, {"2"}) == entries[4]


def test_of_equal_bundles_the_last_move_counts():
    entries, _ = chain(*ROLLED_BACK, Event(kind="forced", from_version="1", to_version="3"))
    assert current_rollback(entries, {"2", "3"}) is None
    entries, _ = chain(*ROLLED_BACK[:2], Event(kind="rollback", from_version="2", to_version="1"))
    assert current_rollback(entries, {"1", "2"}) is None  # back to the same bundle
