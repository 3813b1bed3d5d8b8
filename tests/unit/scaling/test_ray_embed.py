"""Embedding on a Ray cluster of several nodes: the index of the local engine, also when workers and nodes are lost."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from image_finder.components.bundle.bundle import IMAGE_ENCODER, MANIFEST, Bundle
from image_finder.components.configs import EmbeddingConfig, GalleryConfig
from image_finder.components.errors import ConfigError, DataError, StorageError
from image_finder.components.index.format import ITEMS, VECTORS
from image_finder.components.library.engine import embed_here
from image_finder.components.scaling import ray_embed
from image_finder.components.scaling.ray_embed import embedding_engine
from image_finder.components.scaling.ray_session import QUIET
from image_finder.components.storage import hash_directory, sha256_of_file
from image_finder.pipelines import run_config
from tests.support.checkout import CHECKOUT
from tests.support.galleries import publish_gallery

pytestmark = pytest.mark.slow

GATED_READING = CHECKOUT / "tests/support/gated_reading"
LOCAL = EmbeddingConfig(device="cpu", threads=1, batch_images=4)
STALL_S = 8.0  # doubled as long as nothing is finished, so a slow machine is only slower


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs and two nodes of one CPU each."""
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**QUIET, "RAY_TMPDIR": folder, "PYTHONPATH": str(GATED_READING)}.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        # Else ray.init puts the address of a network in place of 127.0.0.1, where these nodes do not listen.
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        Path(folder, "ray").mkdir()
        here: dict[str, Any] = {
            "node_ip_address": "127.0.0.1",
            "object_store_memory": 100 << 20,
            "include_dashboard": False,
        }
        cluster = Cluster(initialize_head=True, head_node_args={**here, "num_cpus": 0})
        try:
            nodes = [cluster.add_node(**here, num_cpus=1) for _ in range(2)]
            yield cluster, nodes, here
        finally:
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def on_ray(cluster):
    return LOCAL.model_copy(update={"engine": "ray", "ray_address": cluster[0].address, "ray_shard_images": 5})


@pytest.fixture(scope="module")
def network(write_colour_bundle, tmp_path_factory):
    """A bundle whose image tower is a small network with random weights: its sums depend on their order."""
    bundle = write_colour_bundle(tmp_path_factory.mktemp("network") / "bundle", input_px=64)
    rng = np.random.default_rng(0)
    constants: dict[str, np.ndarray] = {
        "scale": np.array(1 / 255, np.float32),
        "kernels": rng.standard_normal((32, 3, 8, 8), np.float32),
        "wide": rng.standard_normal((32 * 64, 96), np.float32),
        "narrow": rng.standard_normal((96, 3), np.float32),
        "flat": np.array([0, -1], np.int64),
        "last": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["whole"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["whole", "scale"], ["values"]),
        helper.make_node("Transpose", ["values"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels_first", "kernels"], ["features"], strides=[8, 8]),
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("Reshape", ["positive", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "wide"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "narrow"], ["projected"]),
        helper.make_node("ReduceL2", ["projected", "last"], ["norm"], keepdims=1),
        helper.make_node("Div", ["projected", "norm"], ["embedding"]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 64, 64, 3])
    vectors = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 3])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "network", [pixels], [vectors], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, bundle.path / IMAGE_ENCODER)
    hashes = {**bundle.manifest.files_sha256, IMAGE_ENCODER: sha256_of_file(bundle.path / IMAGE_ENCODER)}
    manifest = bundle.manifest.model_copy(update={"files_sha256": hashes})
    (bundle.path / MANIFEST).write_text(manifest.model_dump_json())
    return Bundle.open(bundle.path)


@pytest.fixture
def folder(tmp_path, paint):
    """30 images of distinct colours."""
    rng = np.random.default_rng(0)
    for number in range(30):
        paint(tmp_path / "images" / f"{number:02d}.png", tuple(int(value) for value in rng.integers(20, 255, 3)))
    return tmp_path / "images"


def embed(bundle, images, tmp_path, config, *, name="library", max_failed_share=0.0, warn=None):
    """The published index of a library whose source is a folder, or a URI."""
    source = {"uri": images} if isinstance(images, str) else {"root": images}
    gallery = GalleryConfig(**source, max_failed_share=max_failed_share)
    engine = embedding_engine(config, cache_dir=tmp_path / "cache")
    return publish_gallery(gallery, bundle, tmp_path / name, config=config, engine=engine, warn=warn)


def keys_of_shards(tmp_path):
    from pyarrow import parquet

    paths = sorted((tmp_path / "cache").glob("shards-*/*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    return [set(parquet.read_table(path)["sha256"].to_pylist()) for path in paths]


@pytest.fixture(autouse=True)
def gated_reading(monkeypatch):
    """Make this process wait at gates, too."""
    monkeypatch.setattr(Path, "read_bytes", Path.read_bytes)  # is put back
    runpy.run_path(str(GATED_READING / "sitecustomize.py"))


class Gate:
    """An image whose readers wait until something is written to the named pipe beside it."""

    def __init__(self, folder, content):
        self.caught = []
        self._content = content
        path = folder / "gate.png"
        path.write_bytes(content)
        self._path = path.with_name(f"{path.name}.pipe")
        os.mkfifo(self._path)

    def open(self):
        """Let readers read the image immediately."""
        self._path.unlink()

    def run(self, *script):
        """Do `serve` or catch(use) for one reader after the other, on a separate thread."""
        thread = threading.Thread(target=lambda: [step() for step in script], daemon=True)
        thread.start()
        return thread

    def serve(self):
        self._path.write_bytes(self._content)
        while list(self._readers()):  # they would take the next writer for this one, and wait for its end
            time.sleep(0.001)

    def catch(self, use):
        """use(pid) while a process waits for the content; it is never served."""

        def catch():
            with self._path.open("wb"):
                # the pipe can be opened for writing a moment before the reader's descriptor is listed
                while not (pids := [pid for pid in self._readers() if pid != os.getpid()]):
                    time.sleep(0.001)
                self.caught.append(pids[0])
                use(pids[0])
            while threads_of(pids[0]):  # as long as one is alive the pipe is open, and would swallow what comes next
                time.sleep(0.001)

        return catch

    def _readers(self):
        for link in Path("/proc").glob("[0-9]*/fd/*"):
            try:
                if link.readlink() == self._path:
                    yield int(link.parts[2])
            except OSError:
                continue


def threads_of(pid):
    """Number of live threads of a process; 0 for a zombie."""
    alive = 0
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            alive += stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            continue
    return alive


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_the_index_equals_that_of_the_local_engine_byte_for_byte(network, on_ray, shared_data, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number, path in enumerate(sorted((shared_data / "coco" / "train2017").glob("*.jpg"))[:37]):
        shutil.copy(path, images / path.name)
        if number % 6 == 0:
            shutil.copy(path, images / f"copy of {path.name}")
    (images / "000.jpg").write_bytes(b"no image")
    (images / "zz.jpg").write_bytes(b"no image")
    (images / "empty.jpg").touch()
    warned = []
    local = embed(network, images, tmp_path, LOCAL, name="local", max_failed_share=0.1)
    index = embed(network, images, tmp_path, on_ray, max_failed_share=0.1, warn=warned)
    for name in (VECTORS, ITEMS):
        assert (index.path / name).read_bytes() == (local.path / name).read_bytes()
    assert index.manifest.self_check == local.manifest.self_check
    assert index.manifest.count == 44
    assert warned[-1].startswith("3 of 47 images of 'images' cannot be read (000.jpg:")
    shards = keys_of_shards(tmp_path)
    assert max(map(len, shards)) <= 5
    assert sum(map(len, shards)) == len(set.union(*shards)) == 37


def test_a_second_run_embeds_only_what_is_new(colour_bundle, folder, on_ray, tmp_path, paint):
    embed(colour_bundle, folder, tmp_path, on_ray)
    before = hash_directory(tmp_path / "cache")
    new = [paint(folder / f"{name}.png", colour) for name, colour in {"05": "red", "new": "blue"}.items()]
    index = embed(colour_bundle, folder, tmp_path, on_ray)
    assert set.union(*keys_of_shards(tmp_path)[-2:]) == {sha256_of_file(path) for path in new}
    assert before.items() <= hash_directory(tmp_path / "cache").items()
    np.testing.assert_allclose(index.vectors[[5, 30]], [[1, 0, 0], [0, 0, 1]], atol=1e-4)
    too_many = folder / "06.png"
    too_many.write_bytes(b"no image")
    before = hash_directory(tmp_path / "library" / "index")
    with pytest.raises(DataError, match=r"1 of 31 .* \(06\.png: .*: 3\.23%, allowed 0\.00%"):
        embed(colour_bundle, folder, tmp_path, on_ray)
    assert hash_directory(tmp_path / "library" / "index") == before


def test_a_killed_worker_is_replaced_without_loss(network, folder, on_ray, tmp_path):
    gate = Gate(folder, (folder / "00.png").read_bytes() + b"\0")
    script = gate.run(gate.serve, gate.catch(kill), gate.serve, gate.serve)
    index = embed(network, folder, tmp_path, on_ray)
    script.join(timeout=30)
    assert not script.is_alive()  # hashed, killed, embedded, looked at by the self-check
    gate.open()
    local = embed(network, folder, tmp_path, LOCAL, name="local")
    assert index.vectors.tobytes() == local.vectors.tobytes()
    assert index.items["sha256"] == local.items["sha256"]


def test_an_address_without_ray_gives_a_one_line_error(colour_bundle, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "1")  # else it is tried for two minutes
    config = LOCAL.model_copy(update={"engine": "ray", "ray_address": "127.0.0.1:1"})
    with pytest.raises(StorageError, match=r"Ray cannot be reached at 127\.0\.0\.1:1: .*; check ray_address") as caught:
        embed(colour_bundle, folder, tmp_path, config)
    assert "\n" not in str(caught.value)


def test_an_actor_larger_than_every_node_is_refused(colour_bundle, folder, on_ray, tmp_path):
    config = on_ray.model_copy(update={"ray_actor_cpus": 3})
    with pytest.raises(ConfigError, match=r"room for an actor of 3 CPUs \(the nodes have \[.*\] CPUs\)"):
        embed(colour_bundle, folder, tmp_path, config)


def test_an_error_on_a_node_is_raised_in_its_own_words(colour_bundle, folder, on_ray, tmp_path):
    (tmp_path / "shards").touch()
    config = on_ray.model_copy(update={"ray_shards": str(tmp_path / "shards")})
    with pytest.raises(StorageError, match=r"cannot write .*shards/shards-.*Not a directory") as caught:
        embed(colour_bundle, folder, tmp_path, config)
    assert "\n" not in str(caught.value)


def test_an_image_that_crashes_every_worker_is_named(colour_bundle, folder, on_ray, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_embed, "_MOST_RETRIES", 0)
    monkeypatch.setattr(ray_embed, "_FRUITLESS_STREAMS", 2)
    gate = Gate(folder, b"any")
    gate.run(gate.serve, *[gate.catch(kill)] * 10)
    with pytest.raises(StorageError, match=r"lost 2 times .* missing: 1 image, the first is .*gate\.png"):
        embed(colour_bundle, folder, tmp_path, on_ray)
    assert len(set.union(*keys_of_shards(tmp_path))) == 30


def test_the_other_nodes_complete_the_work_of_a_lost_node(colour_bundle, folder, on_ray, cluster, tmp_path, caplog):
    ray_cluster, nodes, here = cluster
    gate = Gate(folder, (folder / "00.png").read_bytes() + b"\0")

    def remove_node(pid):
        (lost,) = [node for node in nodes if node.all_processes["raylet"][0].process.pid == parent_of(pid)]
        kill(pid)
        ray_cluster.remove_node(lost, allow_graceful=False)

    script = gate.run(gate.serve, gate.catch(remove_node), gate.serve, gate.serve)
    config = on_ray.model_copy(update={"ray_stall_s": STALL_S})
    try:
        index = embed(colour_bundle, folder, tmp_path, config)
    finally:
        ray_cluster.add_node(**here, num_cpus=1)
    script.join(timeout=30)
    assert not script.is_alive()
    assert index.manifest.count == 31
    assert index.manifest.self_check.found_themselves_first == 31


# Ray that is started for one run

CHILD = """
import sys
from pathlib import Path
from image_finder.components.bundle.bundle import Bundle
from image_finder.components.configs import EmbeddingConfig, GalleryConfig
from image_finder.components.library.index_options import IndexOptions
from image_finder.components.library.indexer import update
from image_finder.components.library.library import Library
from image_finder.components.scaling.ray_embed import embedding_engine
bundle, images, workspace = map(Path, sys.argv[1:4])
config = EmbeddingConfig(device="cpu", engine="ray", ray_actors=1, ray_shard_images=10)
options = IndexOptions(config, bundle=bundle, galleries=[GalleryConfig(root=images, max_failed_share=0)],
    engine=embedding_engine(config, cache_dir=workspace / "cache"), self_check=True)
update(Library(workspace / "library"), [], options, warn=print)
"""


def child(bundle, folder, tmp_path, mark):
    command = [sys.executable, "-c", CHILD, str(bundle.path), str(folder), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": f"{GATED_READING}:{CHECKOUT}", "IMAGE_FINDER_TEST_MARK": mark}
    return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)


def processes_with(mark):
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def no_process_is_left_of(mark):
    until = time.monotonic() + 60
    while processes_with(mark) and time.monotonic() < until:
        time.sleep(0.1)
    return not processes_with(mark)


def test_ctrl_c_stops_ray_and_the_next_run_resumes(colour_bundle, folder, tmp_path):
    mark = f"embedding {tmp_path}"
    gate = Gate(folder, (folder / "00.png").read_bytes() + b"\0")
    stopped = child(colour_bundle, folder, tmp_path, mark)
    gate.run(gate.serve, gate.catch(lambda _: (stopped.send_signal(signal.SIGINT), stopped.wait(60))))
    _, errors = stopped.communicate(timeout=120)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert no_process_is_left_of(mark)
    kept = keys_of_shards(tmp_path)
    assert kept
    gate.run(gate.serve, gate.serve, gate.serve)
    whole = child(colour_bundle, folder, tmp_path, mark)
    _, errors = whole.communicate(timeout=120)
    assert (whole.returncode, errors) == (0, "")
    assert len(set.union(*keys_of_shards(tmp_path))) == 31
    assert keys_of_shards(tmp_path)[: len(kept)] == kept
    assert no_process_is_left_of(mark)


def test_the_error_without_ray_names_the_extra(colour_bundle, folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    config = LOCAL.model_copy(update={"engine": "ray"})
    with pytest.raises(ConfigError, match=r"pip install 'text-guided-image-finder\[ray\]'"):
        embed(colour_bundle, folder, tmp_path, config)


def test_both_engines_build_the_configured_tier(colour_bundle, folder, on_ray, tmp_path, monkeypatch):
    configured = []
    monkeypatch.setattr(
        "image_finder.components.library.publishing.add_tier",
        lambda _, manifest, config, __, **___: configured.append(config) or manifest,
    )
    yaml = tmp_path / "own.yaml"
    yaml.write_text("parameters: {gallery: {}, embedding: {tier: {kind: hnsw, memory_budget_mb: 7}}}\n")
    embedding = run_config.checked("indexing", run_config.load("indexing", str(yaml)))["embedding"]
    assert isinstance(embedding, EmbeddingConfig)
    tier = embedding.tier
    assert tier.memory_budget_mb == 7
    for name, config in (("local", LOCAL), ("ray", on_ray)):
        embed(colour_bundle, folder, tmp_path, config.model_copy(update={"tier": tier}), name=name)
    assert configured == [tier, tier]


def test_the_configuration_chooses_the_engine(tmp_path):
    assert embedding_engine(LOCAL, cache_dir=tmp_path) is embed_here
    engine = embedding_engine(LOCAL.model_copy(update={"engine": "ray"}), cache_dir=tmp_path)
    assert isinstance(engine, partial)
    assert engine.func is ray_embed.embed_on_ray
