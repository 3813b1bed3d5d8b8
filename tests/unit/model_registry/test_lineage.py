import subprocess

from image_finder.components.configs import DatasetConfig, ModelConfig, SplitConfig, TrainingConfig
from image_finder.model_registry import lineage


def demo(**changes):
    return DatasetConfig(name="demo", layout="demo", **changes)


def test_a_run_names_code_configuration_environment_machine_and_seeds():
    found = lineage.of_run(
        "c" * 64,
        data_fingerprint="f" * 64,
        hardware="two cores",
        parent_champion="4",
        run_name="training-x",
        dataset=demo(demo_seed=3),
        split=SplitConfig(seed=5),
        training=TrainingConfig(seed=7),
    )
    assert found.seeds == {"dataset.demo_seed": 3, "split.seed": 5, "training.seed": 7}
    assert (found.hardware, found.parent_champion, found.run_name) == ("two cores", "4", "training-x")
    assert found.configs["split"]["seed"] == 5
    assert found.code_sha256 == "c" * 64
    assert any(each.startswith("pydantic==") for each in found.environment)
    assert len(found.environment_sha256) == 64


def test_every_parameter_except_the_data_path_changes_the_configuration_hash(tmp_path):
    def digest(**configs):
        return lineage.config_sha256(configs)

    before = digest(dataset=demo(), model=ModelConfig())
    assert digest(dataset=demo(root=tmp_path), model=ModelConfig()) == before
    assert digest(model=ModelConfig(), dataset=demo()) == before
    assert digest(dataset=demo(demo_images=21), model=ModelConfig()) != before
    assert digest(dataset=demo(), model=ModelConfig(dropout=0.25)) != before
    assert digest(dataset=demo(), model=ModelConfig(), split=SplitConfig()) != before


def test_unknown_training_hardware_is_replaced_by_that_of_the_registration():
    found = lineage.of_run("c" * 64, training=TrainingConfig())
    assert found.hardware == f"registered on: {lineage.this_hardware()}"
    assert "cores" in found.hardware
    assert "GiB" in found.hardware


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_a_commit_with_changed_files_is_dirty_and_a_folder_without_git_has_no_commit(tmp_path):
    assert lineage.code_version(tmp_path) is None
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    clean = lineage.code_version(tmp_path)
    (tmp_path / "code.py").write_text("x = 2\n")
    assert lineage.code_version(tmp_path) == f"{clean}-dirty"
    hashes = {"config_sha256": "", "environment_sha256": ""}
    assert lineage.Lineage(code_version=f"{clean}-dirty", **hashes).dirty is True
    assert lineage.Lineage(code_version=clean, **hashes).dirty is False
    assert lineage.Lineage(code_version="sources-c0de", **hashes).dirty is None


def test_a_wheel_has_the_commit_of_its_build_and_a_checkout_that_of_git(tmp_path):
    recorded = tmp_path / lineage.RECORDED
    recorded.parent.mkdir()
    recorded.write_text("\n")  # the image was built without the argument
    assert lineage.code_version(tmp_path) is None
    recorded.write_text("0123456789ab-dirty\n")
    assert lineage.code_version(tmp_path) == "0123456789ab-dirty"
    git(tmp_path, "init", "-q")
    assert lineage.code_version(tmp_path) == "0123456789ab-dirty"  # no commit yet
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    assert lineage.code_version(tmp_path) not in {None, "0123456789ab-dirty"}
