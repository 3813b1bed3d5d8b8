"""A registry that is unreachable, slow, read-only, full or damaged: one line, no partial change."""

import resource
import shutil
import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from image_finder.components.bundle.bundle import MANIFEST, Bundle, BundleManifest
from image_finder.components.errors import BundleError, ConfigError, StorageError
from image_finder.components.storage import sha256_of_file
from image_finder.model_registry import names
from image_finder.model_registry.promotions import Promotions
from image_finder.model_registry.registration import register_bundle
from image_finder.model_registry.registry import Registry
from image_finder.model_registry.registry_errors import shown_address
from tests.support.evidence import evidence_of


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture
def store(mlflow_template, tmp_path):
    """A registry with a model of two versions, champion version 1."""
    shutil.copyfile(mlflow_template, tmp_path / "mlflow.db")
    promotions = Promotions(Registry(f"sqlite:///{tmp_path}/mlflow.db"))
    promotions.registry.ensure_model("finder")
    for _ in range(2):
        promotions.registry.client.create_model_version("finder", "file:///nowhere")
    promotions.move_champion("finder", "1", reason="the first")
    return tmp_path / "mlflow.db"


def every_call(promotions):
    """Calls that commands and steps make."""
    return (
        lambda: promotions.registry.versions("finder"),
        lambda: promotions.champion("finder"),
        lambda: promotions.history("finder"),
        lambda: promotions.move_champion("finder", "2", reason="better"),
    )


def test_an_unreachable_registry_is_one_line_with_its_address(impatient):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    promotions = Promotions(Registry(address))
    for call in every_call(promotions):
        with pytest.raises(StorageError) as raised:
            call()
        assert f"the registry at {address} cannot be reached; nothing was changed: start it" in str(raised.value)
        assert "\n" not in str(raised.value)


def test_a_registry_that_never_answers_times_out(impatient):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        held = []
        thread = threading.Thread(target=lambda: held.extend(silent.accept() for _ in range(2)), daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        promotions = Promotions(Registry(address))
        with pytest.raises(StorageError, match="did not answer in time; nothing was changed: run again later"):
            promotions.champion("finder")
        with pytest.raises(StorageError, match="did not answer in time"):
            promotions.move_champion("finder", "2", reason="better")
        thread.join()
        for connection, _ in held:
            connection.close()


def test_a_server_other_than_mlflow_is_reported(impatient):
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        registry = Registry(f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(StorageError, match="is no MLflow server"):
            registry.versions("finder")
        server.shutdown()


def test_a_read_only_registry_is_readable_and_a_write_reports_why_it_fails(store):
    promotions = Promotions(Registry(f"sqlite:///file:{store}?mode=ro&uri=true"))
    assert promotions.champion("finder").version == "1"
    assert promotions.history("finder").faults == ()
    with pytest.raises(StorageError, match="is read-only; nothing was changed: ask for write access"):
        promotions.move_champion("finder", "2", reason="better")
    assert promotions.champion("finder").version == "1"


def test_a_damaged_or_missing_registry_file_is_reported_in_one_line(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError, match="is damaged: restore its database from a backup"):
        Registry(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(ConfigError, match="no registry at sqlite:////.*/other.db: run 'image-finder pipeline run"):
        Registry.existing(f"sqlite:///{tmp_path}/other.db")
    assert not (tmp_path / "other.db").exists()


def test_an_address_is_shown_without_its_password():
    assert shown_address("postgresql://ann:secret@db:5432/mlflow") == "postgresql://ann:***@db:5432/mlflow"
    assert shown_address("https://ann:secret@mlflow.example.org") == "https://ann:***@mlflow.example.org"


@contextmanager
def largest_file(n_bytes):
    """Limit the size of files, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def padded(bundle, n_bytes):
    """The bundle with n_bytes added to its tokenizer."""
    path = bundle.path / "tokenizer.json"
    path.write_text(path.read_text() + " " * n_bytes)
    files = {**bundle.manifest.files_sha256, path.name: sha256_of_file(path)}
    manifest = BundleManifest.model_validate({**bundle.manifest.model_dump(), "files_sha256": files})
    (bundle.path / MANIFEST).write_text(manifest.model_dump_json())
    return Bundle.open(bundle.path)


def test_a_full_disk_at_registration_leaves_no_half_version(store, tiny_bundle, report, monkeypatch):
    monkeypatch.chdir(store.parent)
    uri = f"sqlite:///{store}"
    registry = Registry(uri)
    artefacts = store.parent / "art"
    experiment = registry.client.create_experiment("scratch", artefacts.as_uri())
    evidence = evidence_of(report)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run(experiment_id=experiment):
            bundle = padded(tiny_bundle, 20 << 20)
            with largest_file(10 << 20), pytest.raises(StorageError, match="no space left; nothing was registered"):
                register_bundle(registry, bundle, "finder", evidence, card="# Card")
            assert [each.version for each in registry.versions("finder")] == ["2", "1"]
            assert registry.aliases("finder") == {names.CHAMPION: "1", names.CHALLENGER: "2"}
            assert [path for path in artefacts.rglob("*") if path.is_file()] == []
            made = register_bundle(registry, bundle, "finder", evidence, card="# Card")
        assert (made.version, made.aliases) == ("3", (names.CHALLENGER,))
        assert registry.download_bundle("finder", "3", store.parent / "got").sha256 == bundle.sha256
    finally:
        mlflow.set_tracking_uri(before)


def test_a_full_disk_at_a_promotion_leaves_the_champion(store):
    promotions = Promotions(Registry(f"sqlite:///{store}"))
    with largest_file(100 << 10), pytest.raises(StorageError, match="no space left"):
        promotions.move_champion("finder", "2", reason="better")
    assert promotions.champion("finder").version == "1"
    assert promotions.history("finder").faults == ()
    promotions.move_champion("finder", "2", reason="better")
    assert promotions.champion("finder").version == "2"


def test_a_fetch_on_a_full_disk_leaves_nothing(store, tiny_bundle, report, monkeypatch):
    monkeypatch.chdir(store.parent)
    registry = Registry(f"sqlite:///{store}")
    experiment = registry.client.create_experiment("scratch", (store.parent / "art").as_uri())
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(registry.tracking_uri)
    try:
        with mlflow.start_run(experiment_id=experiment):
            bundle = padded(tiny_bundle, 2 << 20)
            register_bundle(registry, bundle, "finder", evidence_of(report), card="# Card")
    finally:
        mlflow.set_tracking_uri(before)
    to = Path("got")
    with largest_file(1 << 20), pytest.raises(BundleError, match="bundle of finder version 3 cannot be fetched"):
        registry.download_bundle("finder", "3", to)
    assert not to.exists()


@pytest.mark.parametrize(
    "message", ["(psycopg2.errors.UniqueViolation) duplicate key value", "UNIQUE constraint failed"]
)
def test_two_processes_may_set_an_alias_at_once(store, monkeypatch, message):
    """Another process inserts the alias after this one did not find it."""
    registry = Registry(f"sqlite:///{store}")
    point, refused = registry.client.set_registered_model_alias, []

    def overtaken(name, alias, version):
        if not refused:
            refused.append(version)
            point(name, alias, "1")
            raise MlflowException(f"{message}: registered_model_alias_pk")
        point(name, alias, version)

    monkeypatch.setattr(registry.client, "set_registered_model_alias", overtaken)
    registry.set_alias("finder", names.CHALLENGER, "2")
    assert (refused, registry.aliases("finder")[names.CHALLENGER]) == (["2"], "2")
