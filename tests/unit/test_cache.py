from steps._cache import code_hash, hash_sources


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
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "decoy.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert code_hash() == here
