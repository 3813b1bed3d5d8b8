"""A challenger against the current champion: real registry and ledger over SQLite, real bundles of two tiny towers."""

import shutil
import threading
from dataclasses import replace
from functools import partial

import mlflow
import pytest

from image_finder.components.configs import EvaluationConfig, ExtraSetConfig, PromotionConfig, RegistryConfig
from image_finder.components.errors import BundleError, ConfigError
from image_finder.components.evaluation.bundle_recall import measure_bundle
from image_finder.components.records.promotion import PromotionDecision
from image_finder.components.records.retrieval import EvaluatedOn
from image_finder.model_registry import lineage, names, tracking
from image_finder.model_registry.decision import Challenger, decide_from_stored, measure_and_decide
from image_finder.model_registry.promotions import Promotions
from image_finder.model_registry.registration import register_bundle
from image_finder.model_registry.registry import Registry
from image_finder.model_registry.rule import Reports
from tests.support.evidence import evidence_of
from tests.support.tiny_bundle import BAD, FAIR, GOOD, PARITY, VALIDATION, draw_images

MODEL = "finder"
GOOD_IN_3D = {"words": ((0, 1, 0), (0, 0, 1)), "colours": ((0, 1, 0), (0, 0, 1), (1, 0, 0))}
CONFIG = PromotionConfig(min_mean_recall=0.1)
REPORTS = Reports(VALIDATION, PARITY)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("images"))


@pytest.fixture
def measure(images):
    return partial(
        measure_bundle,
        data=images,
        config=EvaluationConfig(ks=(1, 5, 10), bootstrap_samples=200),
        identity=EvaluatedOn(dataset="scratch", data_version="0123456789ab", split="test"),
        code_sha256="c" * 64,
    )


@pytest.fixture
def register(store, make_bundle, report):
    """Writes and registers bundles."""
    made = []

    def registered(tables):
        bundle = make_bundle(f"bundle-{len(made)}", **tables)
        made.append(bundle)
        with mlflow.start_run():
            found = register_bundle(Registry.of_step(), bundle, MODEL, evidence_of(report), card="# Card")
        return Challenger(MODEL, found.version, bundle)

    return registered


@pytest.fixture
def compare(store, measure, tmp_path):
    """Compares a challenger with the champion and returns decision and measurements."""

    def held(challenger, *, measure=measure, config=CONFIG):
        promotions = Promotions(Registry(store), actor="test")
        return measure_and_decide(
            promotions, challenger, measure, reports=REPORTS, config=config, folder=tmp_path / f"v{challenger.version}"
        )

    return held


def champion(store):
    return Registry(store).aliases(MODEL).get(names.CHAMPION)


def kinds(store):
    return [entry.kind for entry in Promotions(Registry(store), actor="test").history(MODEL).entries]


def failed(decision):
    return [check.name for check in decision.checks if not check.passed]


def test_a_better_version_of_any_dimension_is_promoted_and_an_equal_or_worse_one_is_not(store, register, compare):
    first = compare(register(FAIR))
    assert first.decision.promoted
    assert first.champion is None
    assert champion(store) == "1"
    same = compare(register(FAIR)).decision
    assert (same.gain, same.promoted) == (0.0, False)
    assert failed(same) == ["gain"]
    wider = compare(register(GOOD_IN_3D))
    assert wider.decision.promoted
    assert (wider.challenger.measurement.embedding_dim, wider.champion.measurement.embedding_dim) == (3, 2)
    assert wider.decision.challenger_mean_recall == 1.0
    assert wider.decision.gain == pytest.approx(1.0 - wider.decision.champion_mean_recall)
    assert wider.decision.gain > 0.1
    assert Registry(store).aliases(MODEL) == {"challenger": "3", "champion": "3", "previous": "1"}
    worse = compare(register(BAD)).decision
    assert not worse.promoted
    assert failed(worse) == ["gain", "gain interval"]
    assert worse.champion_version == champion(store) == "3"
    assert compare(Challenger(MODEL, "3", None)).decision.reasons == ("version 3 is champion already",)
    decisions = [kind for kind in kinds(store) if kind in {"decision", "moved"}]
    assert decisions == ["decision", "moved", "decision", "decision", "moved", "decision", "decision"]


def test_a_rolled_back_version_and_equal_bundles_are_not_promoted_again(store, register, compare):
    compare(register(FAIR))
    rolled_back = register(GOOD)
    assert compare(rolled_back).decision.promoted
    promotions = Promotions(Registry(store), actor="ann@lab")
    entry = promotions.rollback(MODEL, reason="wrong colours")
    again, equal = compare(rolled_back).decision, compare(register(GOOD)).decision
    assert failed(again) == failed(equal) == ["rollbacks"]
    assert again.gain == equal.gain > 0.1
    assert f"version 2 was rolled back by ledger entry {entry.n}: wrong colours" in again.reasons[0]
    assert f"version 2 with the same bundle was rolled back by ledger entry {entry.n}" in equal.reasons[0]
    assert champion(store) == "1"
    assert compare(register(GOOD_IN_3D)).decision.promoted
    promotions.rollback(MODEL, reason="too wide")
    promotions.move_champion(MODEL, "2", reason="the colours were right")
    assert failed(compare(Challenger(MODEL, "3", rolled_back.bundle)).decision) == ["gain"]


def test_a_first_challenger_below_a_floor_leaves_the_model_without_a_champion(store, register, compare):
    found = compare(register(BAD), config=PromotionConfig(min_mean_recall=0.9)).decision
    assert failed(found) == ["mean recall"]
    assert champion(store) is None


@pytest.mark.parametrize("damage", ["files removed", "files changed", "version deleted"])
def test_a_champion_that_cannot_be_loaded_is_kept(store, register, compare, tmp_path, damage):
    compare(register(FAIR))
    if damage == "version deleted":
        mlflow.MlflowClient(tracking_uri=store, registry_uri=store).delete_model_version(MODEL, "1")
    (tokenizer,) = (tmp_path / "art").rglob("tokenizer.json")
    if damage == "files removed":
        shutil.rmtree(tokenizer.parent)
    elif damage == "files changed":
        tokenizer.write_text(tokenizer.read_text() + " ")
    before = Registry(store).aliases(MODEL)
    found = compare(register(GOOD)).decision
    assert failed(found) == ["champion measured"]
    version = "V" if damage == "version deleted" else "2"
    assert f'image-finder models promote {version} --force --reason "..."' in found.reasons[0]
    after = Registry(store).aliases(MODEL)
    assert after.get("champion") == before.get("champion")


def test_of_two_comparisons_at_once_the_second_compares_with_the_champion_of_the_first(
    store, register, compare, measure
):
    compare(register(BAD))
    fair, good = register(FAIR), register(GOOD)
    inside, outcome = threading.Event(), {}

    def measured_slowly(bundle):
        inside.set()
        waiting.join(1)  # the other comparison cannot end while this one holds the lock
        outcome.setdefault("waited", waiting.is_alive())
        return measure(bundle)

    def second():
        inside.wait(60)
        outcome["second"] = compare(fair).decision

    waiting = threading.Thread(target=second)
    waiting.start()
    outcome["first"] = compare(good, measure=measured_slowly).decision
    waiting.join(60)
    assert outcome["waited"]
    assert (outcome["first"].champion_version, outcome["first"].promoted) == ("1", True)
    assert (outcome["second"].champion_version, outcome["second"].promoted) == ("3", False)
    assert champion(store) == "3"


def test_a_challenger_that_cannot_be_measured_stops_the_run_and_frees_the_model(store, register, compare):
    compare(register(FAIR))
    challenger = register(GOOD)
    (challenger.bundle.path / "text_encoder.onnx").write_bytes(b"no graph")
    before = kinds(store)
    with pytest.raises(BundleError, match="cannot open ONNX graph"):
        compare(challenger)
    assert champion(store) == "1"
    assert kinds(store) == [*before, "registered"]
    assert compare(register(GOOD)).decision.promoted


def test_a_version_that_was_deleted_after_its_registration_is_an_error(store, register, compare):
    challenger = register(GOOD)
    mlflow.MlflowClient(tracking_uri=store, registry_uri=store).delete_model_version(MODEL, "1")
    with pytest.raises(ConfigError, match="version 1 of 'finder' was deleted after it was registered"):
        compare(challenger)


def test_a_run_logs_its_decision_checks_and_measurement(store, register, compare, tmp_path):
    from image_finder.components.metrics.comparison import StoredMeasurement, compare_bundles

    compare(register(FAIR))
    found = compare(register(GOOD))
    mlflow.set_tracking_uri(store)
    with mlflow.start_run() as run:
        tracking.log_promotion(found.decision, StoredMeasurement.of(found.challenger), version_run=None)
    metrics = mlflow.get_run(run.info.run_id).data.metrics
    assert metrics["promotion/promoted"] == 1.0
    assert metrics["promotion/recall_10"] == 1.0
    assert metrics["promotion/gain"] == found.decision.gain
    (decision,) = (tmp_path / "art").rglob("promotion.json")
    assert PromotionDecision.model_validate_json(decision.read_text()) == found.decision
    (kept,) = (tmp_path / "art").rglob(names.MEASURED_ARTIFACT.rpartition("/")[2])
    stored = StoredMeasurement.model_validate_json(kept.read_text()).measured()
    assert compare_bundles(stored, found.champion).gain == found.decision.gain


def test_several_sets_are_judged_alike_from_fresh_and_from_stored_measurements(
    store, make_bundle, images, measure, compare, tmp_path
):
    from image_finder.components.metrics.comparison import StoredMeasurement

    few = {"few": replace(images, captions=images.captions[images.captions["image_id"] < 12])}
    floors = {"few": ExtraSetConfig(annotations="few.json", images="images", min_mean_recall=0.5)}
    evaluation = EvaluationConfig(extra_sets=floors)
    promotions, decisions = Promotions(Registry(store), actor="test"), []
    for name, tables in (("fair", FAIR), ("good", GOOD), ("bad", BAD)):
        bundle = make_bundle(name, **tables)
        with mlflow.start_run() as run:
            tracking.log_record(PARITY, names.PARITY_ARTIFACT)
            measured = measure(bundle, extra_sets=few)
            origin = lineage.of_run("c" * 64, evaluation=evaluation, registry=RegistryConfig(promotion=CONFIG))
            evidence = evidence_of(measured.measurement.report, lineage=origin)
            found = register_bundle(Registry.of_step(), bundle, MODEL, evidence, card="# Card")
            made = measure_and_decide(
                promotions,
                Challenger(MODEL, found.version, bundle),
                partial(measure, extra_sets=few),
                reports=REPORTS,
                config=CONFIG,
                folder=tmp_path / name,
                extra_sets=floors,
            )
            tracking.log_promotion(made.decision, StoredMeasurement.of(made.challenger), version_run=None)
            decisions.append(made.decision)
    assert [each.promoted for each in decisions] == [True, True, False]
    assert {"set test", "set few"} <= {check.name for check in decisions[1].checks if check.passed}
    assert {"mean recall on few", "gain", "set test", "set few"} <= set(failed(decisions[2]))
    again = decide_from_stored(promotions, MODEL, "3")
    assert [(each.name, each.measured, each.passed) for each in again.checks] == [
        (each.name, each.measured, each.passed) for each in decisions[2].checks
    ]
    metrics = mlflow.get_run(run.info.run_id).data.metrics
    assert metrics["promotion/set_few"] < 0
    assert "promotion/mean_recall_on_few" in metrics
