import sys

import pytest

from image_finder.components.installation import install_command


@pytest.mark.parametrize(
    ("file", "first", "again"),
    [
        ("pyvenv.cfg", "pip install 'text-guided-image-finder[faiss]'", "pip install --force-reinstall --no-deps text-guided-image-finder"),
        ("pipx_metadata.json", "pipx install --force 'text-guided-image-finder[faiss]'", "pipx install --force 'text-guided-image-finder[search]'"),
        ("uv-receipt.toml", "uv tool install 'text-guided-image-finder[faiss]'", "uv tool install --reinstall 'text-guided-image-finder[search]'"),
    ],
)  # fmt: skip
def test_the_command_is_that_of_the_program_that_installed_the_package(tmp_path, monkeypatch, file, first, again):
    (tmp_path / file).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert install_command("faiss") == first
    assert install_command(again=True) == again
