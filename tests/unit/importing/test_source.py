"""Sources of imported models: folders, the hub on loopback, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest

from image_finder.components.errors import BundleError, StorageError
from image_finder.components.importing.importer import ImportOptions, import_model
from image_finder.components.importing.source import find_source, load_original
from tests.support.checkout import CHECKOUT
from tests.support.model_hub import model_hub

FIRST, SECOND = "a" * 40, "b" * 40
README = """---
license: other
license_name: apple-amlr
datasets: [first/captions, second/captions]
---
# A model
"""


@pytest.fixture
def copy(original_folder, tmp_path):
    """Function: a copy of a family's folder that a test may damage."""

    def made(family, name="copy"):
        return Path(shutil.copytree(original_folder(family), tmp_path / name))

    return made


def changed(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return str(folder)


def refusal(folder):
    with pytest.raises(BundleError) as caught:
        load_original(find_source(str(folder)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_licence_and_training_data_come_from_the_front_matter(copy):
    folder = copy("siglip")
    (folder / "README.md").write_text(README)
    facts = find_source(str(folder)).facts
    assert facts.licence == "other apple-amlr"
    assert facts.non_commercial
    assert facts.training_data == "first/captions, second/captions"


@pytest.mark.parametrize(
    ("licence", "restricted"),
    [("mit", False), ("apache-2.0", False), ("cc-by-nc-4.0", True), ("cc-by-sa-4.0", False), ("apple-amlr", True)],
)
def test_licences_that_forbid_commercial_use_are_recognised(copy, licence, restricted):
    folder = copy("siglip")
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n")
    assert find_source(str(folder)).facts.non_commercial is restricted


def test_a_source_that_is_neither_a_folder_nor_a_name_of_the_hub_is_refused():
    with pytest.raises(BundleError, match="expected a directory, OWNER/MODEL, open_clip:NAME/TAG"):
        find_source("clip")


def test_pickles_are_never_read(copy):
    folder = copy("siglip")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "holds only pytorch_model.bin, which can execute code" in refusal(folder)


def test_code_of_a_repository_is_never_run(copy):
    folder = copy("siglip")
    changed(folder, "config.json", auto_map={"AutoModel": "modeling_evil.EvilModel"})
    (folder / "modeling_evil.py").write_text("raise SystemExit('run')")
    assert "needs code from its repository, which is never executed" in refusal(folder)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("siglip2", "NaFlex model, whose input size depends on the image; import one of fixed size"),
        ("vit", "has the architecture 'vit', which is not supported or has no text encoder"),
        ("clip_vision_model", "has no text encoder; supported are clip, "),
    ],
)
def test_an_unknown_architecture_names_the_known_ones(copy, architecture, message):
    folder = copy("siglip")
    changed(folder, "config.json", model_type=architecture)
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"do_normalize": False}, "does not have normalisation"),
        ({"do_resize": False}, "does not have resizing"),
        ({"rescale_factor": 1.0}, "does not have rescaling by 1/255"),
        ({"resample": 0}, "does not have interpolation"),
        ({"size": {"height": 64, "width": 32}}, "does not have a square input"),
        ({"do_pad": True}, "does not have no padding"),
    ],
)
def test_a_processor_with_another_step_is_refused(copy, setting, message):
    folder = copy("siglip")
    changed(folder, "preprocessor_config.json", **setting)
    assert message in refusal(folder)


def test_a_truncated_file_of_weights_is_refused(copy):
    folder = copy("siglip")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "cannot be loaded" in refusal(folder)


def test_open_clip_needs_one_file_of_weights_and_a_known_name(copy, tmp_path):
    folder = copy("open_clip")
    (folder / "open_clip_model.safetensors").unlink()
    assert "holds no *.safetensors, expected one" in refusal(folder)
    with pytest.raises(BundleError, match=r"does not exist; name a file of weights"):
        find_source("open_clip:ViT-B-32=nowhere.safetensors")
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"")
    with pytest.raises(BundleError, match="open_clip has no model 'ViT-Z-99'"):
        load_original(find_source(f"open_clip:ViT-Z-99={weights}"))
    with pytest.raises(BundleError, match="has no weights 'nowhere' of 'ViT-B-32'; known are openai, "):
        find_source("open_clip:ViT-B-32/nowhere")


def test_a_pickle_beside_safetensors_is_not_preferred(copy):
    """open_clip itself would load open_clip_pytorch_model.bin rather than model.safetensors."""
    folder = copy("open_clip")
    (folder / "open_clip_model.safetensors").rename(folder / "model.safetensors")
    (folder / "open_clip_pytorch_model.bin").write_bytes(b"not even a pickle")
    assert load_original(find_source(str(folder))).parameters > 0


@pytest.mark.parametrize("options", [{"trust_remote_code": True}, {"bpe_path": "/etc/passwd"}])
def test_a_configuration_cannot_name_code_or_files_for_the_tokenizer(copy, options):
    folder = copy("open_clip")
    path = folder / "open_clip_config.json"
    values = json.loads(path.read_text())
    values["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "lower", **options}
    path.write_text(json.dumps(values))
    assert f"tokenizer_kwargs {next(iter(options))} are not supported" in refusal(folder)


@pytest.mark.parametrize("change", [{"text_cfg": None}, {"embed_dim": "wide"}, {"unknown": 1}])
def test_a_damaged_configuration_of_open_clip_is_one_line(copy, change):
    folder = copy("open_clip")
    path = folder / "open_clip_config.json"
    values = json.loads(path.read_text())
    values["model_cfg"] = {name: value for name, value in (values["model_cfg"] | change).items() if value is not None}
    path.write_text(json.dumps(values))
    assert "cannot be" in refusal(folder)


def test_a_local_file_gives_a_known_architecture_its_weights(copy, tmp_path, monkeypatch):
    folder = copy("open_clip")
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIG_PATHS", [])
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", {})
    config = tmp_path / "tiny-vit.json"
    config.write_text(json.dumps(json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]))
    open_clip.add_model_config(config)
    source = find_source(f"open_clip:tiny-vit={folder / 'open_clip_model.safetensors'}")
    by_file, by_folder = load_original(source), load_original(find_source(str(folder)))
    assert (by_file.architecture, by_file.preprocess) == ("tiny-vit", by_folder.preprocess)
    np.testing.assert_array_equal(by_file.reference.texts(["a dog"]), by_folder.reference.texts(["a dog"]))


def test_a_tag_of_open_clip_without_a_repository_is_refused(monkeypatch):
    monkeypatch.setattr("open_clip.pretrained.get_pretrained_cfg", lambda *_: {"url": "https://example.org/weights.pt"})
    with pytest.raises(BundleError, match="publishes 'RN50/old' only as a pickle"):
        find_source("open_clip:RN50/old")


def test_nothing_is_written_if_the_disk_is_too_small(original_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(StorageError, match=r"0 MB free, the model needs 0 MB; free some space or name another disk"):
        import_model(find_source(str(original_folder("siglip"))), tmp_path / "bundle", ImportOptions())
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_loaded_if_the_memory_is_too_small(original_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("image_finder.components.importing.importer.available_memory_mb", lambda: 0.1)
    with pytest.raises(
        StorageError, match="0 MB of memory are free, the import needs about 90. MB; close other programs"
    ):
        import_model(find_source(str(original_folder("siglip"))), tmp_path / "bundle", ImportOptions())
    assert list(tmp_path.iterdir()) == []


# The hub


def fetch(hub, home, *arguments, **environment):
    """Find a source in another process, whose hub is the loopback server; its output and error."""
    code = (
        "import sys; from image_finder.components.importing.source import find_source\n"
        "from image_finder.components.errors import FinderError\n"
        "try:\n  found = find_source(sys.argv[1], revision=sys.argv[2] if len(sys.argv) > 2 else None)\n"
        "except FinderError as error:\n  sys.exit(str(error))\n"
        "print(found.revision, found.files)"
    )
    variables = {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "PYTHONPATH": str(CHECKOUT),
        "HF_HUB_DISABLE_XET": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables, **environment},
        timeout=120,
    )
    return done.stdout.strip(), done.stderr.strip().splitlines()[-1:] or [""]


@pytest.fixture
def hub(copy, tmp_path):
    first, second = copy("siglip", "first"), copy("siglip", "second")
    (second / "README.md").write_text("---\nlicense: mit\n---\n")
    (first / "pytorch_model.bin").write_bytes(b"a pickle")
    with model_hub("team/model", {FIRST: first, SECOND: second}, FIRST) as server:
        yield server


@pytest.mark.slow
def test_a_model_is_fetched_at_one_commit_without_its_pickles(hub, tmp_path):
    printed, _ = fetch(hub, tmp_path / "home", "team/model")
    revision, folder = printed.split()
    assert revision == FIRST
    assert {path.name for path in Path(folder).iterdir()} >= {"model.safetensors", "config.json", "spiece.model"}
    assert not any("pytorch_model.bin" in path for _, path, _ in hub.requests)
    hub.newest = SECOND
    assert fetch(hub, tmp_path / "home", "team/model")[0].split()[0] == SECOND
    assert fetch(hub, tmp_path / "home", "team/model", FIRST)[0].split()[0] == FIRST


@pytest.mark.slow
def test_a_download_that_breaks_off_ends_complete(hub, tmp_path):
    hub.cut = "model.safetensors"
    printed, error = fetch(hub, tmp_path / "home", "team/model")
    if not printed:  # the library gave up at once
        assert "a download is resumed" in error[0]
        printed, _ = fetch(hub, tmp_path / "home", "team/model")
    folder = Path(printed.split()[1])
    assert (folder / "model.safetensors").read_bytes() == hub.commits[FIRST]["model.safetensors"]
    assert [method for method, path, _ in hub.requests if "/cdn/" in path].count("GET") == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "GatedRepo", "team/model asks for consent: accept its terms"),
        (401, "", "team/model is not on the hub, or private"),
        (404, "RepoNotFound", "team/model is not on the hub, or private"),
        (500, "", "cannot fetch team/model from the hub"),
    ],
)
def test_refusals_of_the_hub_are_one_line_with_what_to_do(hub, tmp_path, status, code, message):
    hub.status, hub.error = status, code
    printed, (error,) = fetch(hub, tmp_path / "home", "team/model")
    assert printed == ""
    assert error.startswith(message)


@pytest.mark.slow
def test_an_unknown_revision_and_a_repository_of_pickles_are_refused(hub, tmp_path):
    assert "has no revision 'c0ffee'" in fetch(hub, tmp_path / "home", "team/model", "c0ffee")[1][0]
    del hub.commits[FIRST]["model.safetensors"]
    assert "team/model has no *.safetensors" in fetch(hub, tmp_path / "home", "team/model")[1][0]


@pytest.mark.slow
def test_without_a_network_the_message_names_it(hub, tmp_path):
    hub.shutdown()
    hub.server_close()
    _, (error,) = fetch(hub, tmp_path / "home", "team/model")
    assert "cannot fetch team/model from the hub" in error
