import sys
from importlib import import_module

from image_finder.model_registry import lineage
from image_finder.model_registry.code_hash import code_hash, hash_sources
from image_finder.steps._cache import CODE_AWARE


def test_hash_follows_content_names_and_new_files_but_not_other_files(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.py").write_text("A = 1\n")
    before = hash_sources({"package": tmp_path})
    (tmp_path / "notes.txt").write_text("not code")
    assert hash_sources({"package": tmp_path}) == before
    (tmp_path / "deep" / "a.py").write_text("A = 2\n")
    edited = hash_sources({"package": tmp_path})
    (tmp_path / "deep" / "a.py").rename(tmp_path / "deep" / "b.py")
    renamed = hash_sources({"package": tmp_path})
    (tmp_path / "c.py").write_text("")
    assert len({before, edited, renamed, hash_sources({"package": tmp_path})}) == 4


def test_hash_does_not_depend_on_the_current_folder(tmp_path, monkeypatch):
    here = code_hash()
    (tmp_path / "image_finder" / "components").mkdir(parents=True)
    (tmp_path / "image_finder" / "components" / "decoy.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert code_hash() == here


def key_of_the_policy():
    """What ZenML puts into the cache key: it finds the function by its name."""
    return getattr(import_module(CODE_AWARE.cache_func.module), CODE_AWARE.cache_func.attribute)()


def test_a_package_that_is_installed_makes_another_cache_key_of_the_same_code(tmp_path, monkeypatch):
    before, code = key_of_the_policy(), code_hash()
    newcomer = tmp_path / "newcomer-1.0.dist-info"
    newcomer.mkdir()
    (newcomer / "METADATA").write_text("Metadata-Version: 2.1\nName: newcomer\nVersion: 1.0\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert key_of_the_policy() == before  # read once in a process
    lineage.environment.cache_clear()
    try:
        assert key_of_the_policy() not in {before, f"{code} "}
        assert code_hash() == code
    finally:
        lineage.environment.cache_clear()
