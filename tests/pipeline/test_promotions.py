"""Aliases and their ledger over a real MLflow store: moved whole, by one at a time, and honest about what hands did."""

import contextlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from image_finder.components.errors import BusyError, ConfigError
from image_finder.components.records.promotion import PromotionDecision
from image_finder.model_registry import names
from image_finder.model_registry.ledger.entries import Event
from image_finder.model_registry.ledger.store import LedgerStore
from image_finder.model_registry.promotions import Promotions
from image_finder.model_registry.registry import Registry
from tests.support.checkout import CHECKOUT

CHILDREN = Path(__file__).with_name("registry_children.py")


@pytest.fixture(scope="module")
def registry(registry_uri):
    return Registry(registry_uri)


@pytest.fixture
def promotions(registry):
    return Promotions(registry, actor="ann@lab")


@pytest.fixture
def model(registry, request):
    """A model with three versions, named after the test."""
    name = request.node.name[:80]
    registry.ensure_model(name)
    for _ in range(3):
        registry.client.create_model_version(
            name, "file:///nowhere", tags={names.DATA_VERSION: "0123456789ab", names.MEAN_RECALL: "0.5"}
        )
    return name


def where(promotions, model):
    aliases = promotions.registry.aliases(model)
    return tuple(aliases.get(name) for name in (names.CHAMPION, names.PREVIOUS, names.CHALLENGER))


def description(promotions, model, version):
    return promotions.registry.client.get_model_version(model, version).description


def kinds(promotions, model):
    return [entry.kind for entry in promotions.history(model).entries]


def faults(promotions, model):
    return [fault.text.partition(" (run")[0] for fault in promotions.history(model).faults]


@contextlib.contextmanager
def database(registry):
    """The store in a database tool."""
    with contextlib.closing(sqlite3.connect(registry.tracking_uri.removeprefix("sqlite:///"))) as connection:
        yield connection
        connection.commit()


def entry_run(promotions, model, n):
    experiment = promotions.registry.client.get_experiment_by_name(f"{model} ledger")
    found = promotions.registry.client.search_runs([experiment.experiment_id], f"tags.n = '{n:08d}'")
    return found[0].info.run_id


def edit(registry, run_id, key, change):
    with database(registry) as connection:
        (value,) = connection.execute("SELECT value FROM tags WHERE run_uuid=? AND key=?", (run_id, key)).fetchone()
        connection.execute("UPDATE tags SET value=? WHERE run_uuid=? AND key=?", (change(value), run_id, key))


# Moves


def test_a_promotion_moves_champion_and_previous_and_is_recorded(promotions, model):
    promotions.move_champion(model, "1", reason="the first")
    assert where(promotions, model) == ("1", None, "3")
    entry = promotions.move_champion(model, "2", reason="better")
    assert where(promotions, model) == ("2", "1", "3")
    assert (entry.kind, entry.from_version, entry.to_version, entry.actor) == ("moved", "1", "2", "ann@lab")
    assert (entry.data_version, entry.reasons) == ("0123456789ab", ("better",))
    expected = ["registered", "registered", "registered", "moving", "moved", "moving", "moved"]
    history = promotions.history(model)
    assert ([each.kind for each in history.entries], history.faults, history.notes) == (expected, (), ())
    assert promotions.registry.version(model, "2").tags[names.LAST_EVENT] == "0007 v2 promoted over v1"
    assert promotions.registry.version(model, "1").tags[names.LAST_EVENT] == "replaced as champion by v2"


def test_a_version_that_is_champion_already_is_not_moved_again(promotions, model):
    first = promotions.move_champion(model, "1", reason="the first")
    assert promotions.move_champion(model, "1", reason="again") == first
    assert kinds(promotions, model)[-1] == "moved"


def test_an_unknown_version_moves_nothing(promotions, model):
    with pytest.raises(ConfigError, match="has no version or alias '9'"):
        promotions.move_champion(model, "9", reason="hope")
    assert where(promotions, model) == (None, None, "3")


def test_a_second_rollback_undoes_the_first(promotions, model):
    for version in ("1", "2"):
        promotions.move_champion(model, version, reason="better")
    entry = promotions.rollback(model, reason="wrong colours")
    assert (entry.kind, entry.from_version, entry.to_version) == ("rollback", "2", "1")
    assert where(promotions, model)[:2] == ("1", "2")
    promotions.rollback(model, reason="colours were right")
    assert where(promotions, model)[:2] == ("2", "1")


def test_a_rollback_without_a_previous_version_is_an_error(promotions, model):
    promotions.move_champion(model, "1", reason="the first")
    with pytest.raises(ConfigError, match="no previous version to go back to"):
        promotions.rollback(model, reason="regret")
    assert where(promotions, model)[0] == "1"


def test_a_forced_decision_is_recorded_as_forced_with_its_measurements(promotions, model):
    promotions.move_champion(model, "1", reason="the first")
    decision = PromotionDecision(
        promoted=True, challenger_version="2", champion_version="1", reasons=("forced: a fair is on",), checks=(),
        challenger_mean_recall=0.4, champion_mean_recall=0.5, gain=-0.1, gain_interval=None, forced=True,
    )  # fmt: skip
    promotions.record(model, decision)
    entry = promotions.move_champion(model, "2", reason="", decision=decision)
    assert (entry.kind, entry.measurements["gain"], entry.reasons) == ("forced", -0.1, ("forced: a fair is on",))
    assert kinds(promotions, model)[-3:] == ["decision", "moving", "forced"]


def test_the_description_says_what_became_of_a_version(promotions, model):
    client = promotions.registry.client
    for version in ("1", "2"):
        client.set_model_version_tag(model, version, names.SUMMARY, "Finds 50 of 100 images first")
        client.update_model_version(model, version, "Finds 50 of 100 images first, undecided.\n\n# Card\n\nA line.\n")
    client.update_model_version(model, "3", "# A card without a summary\n\nA line.\n")
    for version in ("1", "2", "3"):
        promotions.move_champion(model, version, reason=f"better {version}.")
    today = promotions.history(model).entries[-1].at[:10]
    promotions.record(model, Event(kind="index", to_version="2"))  # changes nothing
    card = "\n\n# Card\n\nA line.\n"
    assert description(promotions, model, "1") == (
        f"Finds 50 of 100 images first, champion until {today}, when version 2 replaced it.{card}"
    )
    promotions.rollback(model, reason="blue is red")
    assert description(promotions, model, "2") == (
        f"Finds 50 of 100 images first, champion again since {today} because: blue is red.{card}"
    )
    promotions.move_champion(model, "1", reason="better 1.")
    assert description(promotions, model, "1") == (
        f"Finds 50 of 100 images first, promoted on {today} because: better 1.{card}"
    )
    assert description(promotions, model, "3") == "# A card without a summary\n\nA line.\n"


# Changes outside our commands


def test_a_deleted_champion_is_not_taken_for_no_champion_yet(promotions, model):
    assert promotions.champion(model).fault == ""  # there never was one
    for version in ("1", "2"):
        promotions.move_champion(model, version, reason="better")
    promotions.registry.client.delete_model_version(model, "2")
    fault = "champion version 2 of .* no longer exists: .*models rollback` goes back to version 1"
    status = promotions.champion(model)
    assert status.version is None
    assert promotions.registry.champion_version(model) is None
    assert re.search(fault, status.fault)
    promotions.reconcile(model)
    assert re.search(fault, promotions.champion(model).fault)  # recorded, and still no champion
    assert promotions.history(model).entries[-1].kind == "outside"
    assert promotions.rollback(model, reason="it was deleted").to_version == "1"
    assert where(promotions, model) == ("1", None, "3")
    assert promotions.reconcile(model) == ()


def test_an_alias_of_a_missing_version_is_reported_and_can_be_replaced(promotions, model):
    promotions.move_champion(model, "1", reason="the first")
    with database(promotions.registry) as connection:
        connection.execute("UPDATE registered_model_aliases SET version=99 WHERE name=? AND alias='champion'", (model,))
    assert "champion version 99" in promotions.champion(model).fault
    with pytest.raises(ConfigError, match="the alias points to version 99, which was deleted"):
        promotions.registry.version(model, "champion")
    promotions.move_champion(model, "2", reason="repair")
    assert where(promotions, model)[0] == "2"
    assert promotions.champion(model).fault == ""


def test_an_alias_moved_by_hand_is_recorded_and_a_rollback_undoes_it(promotions, model):
    promotions.move_champion(model, "1", reason="the first")
    promotions.registry.client.set_registered_model_alias(model, "champion", "3")  # as a click in the UI does
    assert promotions.history(model).notes == ("not recorded yet: the champion is version 3, in the ledger 1",)
    (entry,) = promotions.reconcile(model)
    assert (entry.kind, entry.alias, entry.from_version, entry.to_version) == ("outside", "champion", "1", "3")
    assert where(promotions, model)[:2] == ("3", "1")
    assert promotions.reconcile(model) == ()
    promotions.rollback(model, reason="it was a mistake")
    assert where(promotions, model)[:2] == ("1", "3")


def test_a_registry_that_is_older_than_its_ledger_is_recorded(promotions, model):
    promotions.registry.client.set_registered_model_alias(model, "champion", "2")
    promotions.reconcile(model)
    assert kinds(promotions, model) == ["registered", "registered", "registered", "outside"]
    promotions.move_champion(model, "3", reason="better")
    assert where(promotions, model)[:2] == ("3", "2")


def test_a_registration_that_was_interrupted_before_its_alias_gets_it(promotions, model):
    promotions.reconcile(model)
    promotions.registry.client.create_model_version(model, "file:///nowhere")
    assert where(promotions, model)[2] == "3"
    (entry,) = promotions.reconcile(model)
    assert (entry.kind, entry.from_version, entry.to_version) == ("registered", "3", "4")
    assert where(promotions, model)[2] == "4"


# Processes that are killed, race and hang


@pytest.fixture(scope="module")
def children(registry_uri, mlflow_template, tmp_path_factory):
    """Results of registry_children.py in a separate store."""
    folder = tmp_path_factory.mktemp("children")
    shutil.copyfile(mlflow_template, folder / "mlflow.db")
    done = subprocess.run(
        [sys.executable, CHILDREN, f"sqlite:///{folder}/mlflow.db", "crash", "race", "stale"],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout)


def test_a_promotion_killed_at_any_write_leaves_a_champion_and_is_completed_or_absent(children):
    *crashes, whole = children["crash"]
    assert whole == {"ended": 0}  # the run that was not killed
    assert len(crashes) > 8  # head, text and end of two entries, two aliases, tags
    for crash in crashes:
        before, after = crash["before"], crash["after"]
        assert crash["ended"] == -signal.SIGKILL
        assert before["aliases"]["champion"] in {"2", "3"}
        assert before["faults"] == after["faults"] == after["notes"] == []
        story = before["story"][-2:]
        begun = any("v3 about to become champion" in each for each in story)
        wanted = ("3", "2") if begun else ("2", "1")
        assert (after["aliases"]["champion"], after["aliases"]["previous"]) == wanted
        assert after["story"][-1].endswith("v3 promoted over v2" if begun else "v2 promoted over v1")
    assert {crash["before"]["aliases"]["champion"] for crash in crashes} == {"2", "3"}
    interrupted = [crash for crash in crashes if crash["before"]["notes"]]
    assert len(interrupted) > 2
    for crash in interrupted:
        assert crash["before"]["notes"][0].startswith("interrupted: v3 about to become champion")
        last = crash["after"]["last"]
        assert (last["reasons"][0], last["actor"]) == ("best", "cleo@lab")
        assert last["reasons"][1].startswith("begun by bob@lab")


def test_of_two_promotions_at_once_the_second_compares_with_the_champion_of_the_first(children):
    race = children["race"]
    assert [code for code, _ in race["compared"]] == [0, 0]
    compared = {"2": race["compared"][0][1], "3": race["compared"][1][1]}
    first = next(version for version, champion in compared.items() if champion == "1")
    second = "3" if first == "2" else "2"
    assert compared[second] == first
    assert (race["aliases"]["champion"], race["aliases"]["previous"]) == (second, first)
    assert (race["faults"], race["notes"]) == ([], [])


def test_a_lock_in_the_store_is_taken_over_from_a_killed_holder_by_one_waiter_at_a_time(children):
    (first, second) = sorted(held for code, held in children["stale"]["held"])
    assert [code for code, _ in children["stale"]["held"]] == [0, 0]
    assert first[1] <= second[0]
    assert children["stale"]["left"] == []


def test_the_error_after_waiting_too_long_names_the_holder(promotions, model, registry):
    other = Promotions(Registry(registry.tracking_uri), actor="bob@lab")

    def enter():
        with other.exclusive(model, wait_s=0.1):
            return True

    with ThreadPoolExecutor(1) as elsewhere:
        with promotions.exclusive(model), promotions.exclusive(model):  # a holder may take it again
            waiting = elsewhere.submit(enter)
            with pytest.raises(BusyError, match=r"is still locked by .*process \d+, since .* after 0 s"):
                waiting.result()
        assert elsewhere.submit(enter).result()  # released


# Damage to the ledger


@pytest.fixture
def promoted(promotions, model):
    """Entries 1 to 3 registered, 4 moving, 5 moved, 6 moving, 7 moved."""
    for version in ("1", "2"):
        promotions.move_champion(model, version, reason="better")
    return model


def test_an_entry_cut_in_half_is_reported_and_the_ledger_remains_usable(promotions, promoted):
    edit(promotions.registry, entry_run(promotions, promoted, 5), "entry", lambda text: text[: len(text) // 2])
    history = promotions.history(promoted)
    assert [entry.n for entry in history.entries] == [1, 2, 3, 4, 6, 7]
    cut = "the text of entry 5 was cut or edited: its hash differs from the recorded one"
    assert faults(promotions, promoted) == [cut]
    promotions.move_champion(promoted, "3", reason="better")
    assert where(promotions, promoted)[:2] == ("3", "2")
    assert faults(promotions, promoted) == [cut]


def test_an_edited_reason_is_named(promotions, promoted):
    edit(
        promotions.registry, entry_run(promotions, promoted, 7), "entry", lambda text: text.replace("better", "bribed")
    )
    assert "text of entry 7 was cut or edited" in faults(promotions, promoted)[0]
    promotions.reconcile(promoted)  # what entry 7 said is not known any more, what the alias says is
    assert where(promotions, promoted)[0] == "2"


def test_a_reason_edited_in_mlflow_is_reported_and_the_text_is_intact(promotions, promoted):
    run = entry_run(promotions, promoted, 7)
    promotions.registry.client.set_tag(run, "reasons", "bribed")
    assert faults(promotions, promoted) == ["MLflow shows an edited entry 7 (reasons); its text is intact"]
    assert promotions.history(promoted).entries[-1].reasons == ("better",)
    promotions.registry.client.set_tag(run, "reviewed by", "the auditor")  # an additional tag is no damage
    assert len(faults(promotions, promoted)) == 1


def test_a_deleted_entry_is_reported_whether_marked_or_removed(promotions, promoted):
    run = entry_run(promotions, promoted, 4)
    promotions.registry.client.delete_run(run)
    assert faults(promotions, promoted) == [
        f"entry 4 was deleted in MLflow; restore it with `mlflow runs restore --run-id {run}`"
    ]
    with database(promotions.registry) as connection:
        connection.execute("DELETE FROM tags WHERE run_uuid=?", (run,))
        connection.execute("DELETE FROM runs WHERE run_uuid=?", (run,))
    assert faults(promotions, promoted) == ["entry 4 is missing; entry 5 or a later one exists"]


def test_a_removed_last_entry_is_still_reported_after_the_next(promotions, promoted):
    run = entry_run(promotions, promoted, 7)
    with database(promotions.registry) as connection:
        connection.execute("DELETE FROM tags WHERE run_uuid=?", (run,))
        connection.execute("DELETE FROM runs WHERE run_uuid=?", (run,))
    assert faults(promotions, promoted) == ["entry 7 is missing; the head names entry 7 as the last"]
    entry = promotions.record(promoted, Event(kind="skipped"))
    assert entry.n == 8
    assert faults(promotions, promoted) == ["entry 7 is missing; entry 8 or a later one exists"]


def test_exchanged_entries_are_named(promotions, promoted):
    five, seven = entry_run(promotions, promoted, 5), entry_run(promotions, promoted, 7)
    edit(promotions.registry, five, "n", lambda _: "00000007")
    edit(promotions.registry, seven, "n", lambda _: "00000005")
    assert [fault for fault in faults(promotions, promoted) if "is stored as" in fault] == [
        f"entry 7 of {promoted} is stored as entry 5 of {promoted}",
        f"entry 5 of {promoted} is stored as entry 7 of {promoted}",
    ]
    assert promotions.record(promoted, Event(kind="skipped")).n == 8


def test_a_removed_head_is_reported_and_recorded_by_the_next_entry(promotions, promoted):
    promotions.registry.client.delete_registered_model_tag(promoted, names.LEDGER_HEAD)
    expected = "the head of the ledger was removed or edited, so missing entries at the end cannot be detected"
    assert faults(promotions, promoted) == [expected]
    promotions.move_champion(promoted, "3", reason="better")
    assert faults(promotions, promoted) == []
    assert kinds(promotions, promoted)[7:] == ["damaged", "moving", "moved"]


def test_a_deleted_ledger_experiment_is_reported_and_restored_by_the_next_entry(promotions, promoted):
    client = promotions.registry.client
    client.delete_experiment(client.get_experiment_by_name(f"{promoted} ledger").experiment_id)
    assert faults(promotions, promoted)[0].startswith("the experiment of the ledger was deleted")
    promotions.move_champion(promoted, "3", reason="better")
    assert where(promotions, promoted)[0] == "3"
    assert client.get_experiment_by_name(f"{promoted} ledger").lifecycle_stage == "active"


def test_a_clock_that_jumps_back_does_not_change_the_order(promotions, promoted):
    earlier = iter(datetime(2020, 1, 1, tzinfo=UTC) - timedelta(days=day) for day in range(9))
    promotions.ledger = LedgerStore(promotions.registry.client, promotions.tracking_uri, now=lambda: next(earlier))
    promotions.move_champion(promoted, "3", reason="better")
    history = promotions.history(promoted)
    assert [entry.n for entry in history.entries] == list(range(1, 10))
    assert [entry.at[:10] for entry in history.entries[-2:]] == ["2020-01-01", "2019-12-31"]
    assert history.faults == ()
    assert where(promotions, promoted)[:2] == ("3", "2")


def test_a_long_entry_is_stored_completely(promotions, promoted):
    reasons = tuple(f"slice {number} fell by more than it may: ä€😀" * 5 for number in range(200))
    promotions.record(promoted, Event(kind="decision", to_version="3", reasons=reasons))
    history = promotions.history(promoted)
    assert history.entries[-1].reasons == reasons
    assert history.faults == ()
