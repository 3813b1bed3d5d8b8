import sys

import pytest

from image_finder.components.installation import add_command, install_command


@pytest.mark.parametrize(
    ("file", "first", "again", "add"),
    [
        ("pyvenv.cfg", "pip install 'text-guided-image-finder[faiss]'", "pip install --force-reinstall --no-deps text-guided-image-finder", "pip install --no-deps a.whl"),
        ("pipx_metadata.json", "pipx install --force 'text-guided-image-finder[faiss]'", "pipx install --force 'text-guided-image-finder[search]'", 'pipx runpip text-guided-image-finder install --no-deps "$PWD/a.whl"'),
        ("uv-receipt.toml", "uv tool install 'text-guided-image-finder[faiss]'", "uv tool install --reinstall 'text-guided-image-finder[search]'", "uv pip install --python {prefix} --no-deps a.whl"),
    ],
)  # fmt: skip
def test_the_command_is_that_of_the_program_that_installed_the_package(tmp_path, monkeypatch, file, first, again, add):
    (tmp_path / file).touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert install_command("faiss") == first
    assert install_command(again=True) == again
    assert add_command("a.whl") == add.format(prefix=tmp_path)
