import os
import subprocess
import sys
from importlib import metadata

import click
import pytest
from click.testing import CliRunner

from image_finder.components.app.cli import main
from image_finder.components.app.error_boundary import shown_to_user
from image_finder.components.errors import QueryError
from tests.support.checkout import CHECKOUT


@pytest.fixture
def offer(monkeypatch):
    """offer(name, target): make `target` the only command."""

    def one(name, target):
        point = metadata.EntryPoint(name, target, "image_finder.commands")
        found = metadata.EntryPoints([point])
        monkeypatch.setattr(metadata, "entry_points", found.select)

    return one


def make(tmp_path, monkeypatch, name, body):
    (tmp_path / f"{name}.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    return name


COMMAND = "import click\n@click.command()\ndef go():\n    '''Go there.'''\n    "


def test_help_lists_every_command_with_its_first_line():
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for name in ("search", "data"):
        assert f"\n  {name} " in result.stdout
    assert "Find the images that best match a text or an image" in result.stdout


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom image_finder.components.app.cli import main\ntry:\n    main(['--help'])\nfinally:\n    "
        "print([n for n in ('torch', 'zenml', 'mlflow', 'pandas', 'onnxruntime', 'numpy') if n in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_version_is_the_packages():
    assert metadata.version("text-guided-image-finder") in CliRunner().invoke(main, ["--version"]).stdout


def test_an_unknown_command_suggests_similar_names():
    result = CliRunner().invoke(main, ["serch", "dog"])
    assert result.exit_code == 2
    assert "no command 'serch': did you mean search" in result.stderr
    assert "choose from classify, completion," in CliRunner().invoke(main, ["xyzzy"]).stderr


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("from image_finder.components.errors import DataError; raise DataError('a  b\\nc')", 1, "Error: a  b\\nc\n"),
        ("raise KeyboardInterrupt", 130, "stopped; run the same command again to resume\n"),
        ("raise ModuleNotFoundError('no', name='torch.nn')", 1, "Error: this command needs torch, which is not installed: pip install 'text-guided-image-finder[pipeline]'\n"),
        ("raise ModuleNotFoundError('no', name='onnxruntime')", 1, "Error: this command needs onnxruntime, which is not installed: pip install 'text-guided-image-finder[search]'\n"),
        ("raise ModuleNotFoundError('no', name='pandas')", 1, "Error: this command needs pandas, which is not installed: pip install 'text-guided-image-finder[data]'\n"),
        ("raise MemoryError('Unable to allocate 4.00 TiB')", 1, "Error: out of memory (Unable to allocate 4.00 TiB): close other programs, or raise the memory limit, and run the same command again\n"),
        ("raise MemoryError", 1, "Error: out of memory: close other programs, or raise the memory limit, and run the same command again\n"),
    ],
)  # fmt: skip
def test_errors_become_one_line_and_an_exit_code(tmp_path, monkeypatch, offer, body, code, message):
    name = make(tmp_path, monkeypatch, f"command_{abs(hash(body))}", COMMAND + body)
    offer("go", f"{name}:go")
    result = CliRunner().invoke(main, ["go"])
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", message)


def test_a_bug_keeps_its_traceback(tmp_path, monkeypatch, offer):
    name = make(tmp_path, monkeypatch, "command_faulty", COMMAND + "raise ZeroDivisionError")
    offer("go", f"{name}:go")
    assert isinstance(CliRunner().invoke(main, ["go"]).exception, ZeroDivisionError)
    name = make(tmp_path, monkeypatch, "command_own", COMMAND + "import image_finder.absent")
    offer("go", f"{name}:go")
    assert isinstance(CliRunner().invoke(main, ["go"]).exception, ModuleNotFoundError)


def test_a_missing_package_is_reported_and_leaves_the_help_intact(tmp_path, monkeypatch, offer):
    name = make(tmp_path, monkeypatch, "command_needy", "import zenml_is_not_here\n")
    offer("needy", f"{name}:go")
    result = CliRunner().invoke(main, ["needy"])
    assert result.exit_code == 1
    hint = "pip install 'text-guided-image-finder[pipeline]'"
    assert result.stderr == f"Error: this command needs zenml_is_not_here, which is not installed: {hint}\n"
    help_text = CliRunner().invoke(main, ["--help"])
    assert help_text.exit_code == 0
    assert "needs zenml_is_not_here" in " ".join(help_text.stdout.split())


def test_nested_error_boundaries_translate_once():
    with pytest.raises(click.ClickException, match=r"^empty$"), shown_to_user(), shown_to_user():
        raise QueryError("empty")


def test_completion_offers_what_can_run(monkeypatch, offer):
    offer("go", "no_such_module_at_all:go")
    monkeypatch.setenv("COMP_WORDS", "image-finder g")
    monkeypatch.setenv("COMP_CWORD", "1")
    result = CliRunner().invoke(main, [], env={"_IMAGE_FINDER_COMPLETE": "bash_complete"}, prog_name="image-finder")
    assert (result.exit_code, result.stdout.strip()) == (0, "")
