"""Terminals: one for commands of the documents, in a network without a way out, and one with a screen (tmux)."""

import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.isolated_network import IsolatedNetwork

CACHES = re.compile(r"\.(cache|config)/(matplotlib|uv)/")  # of fonts and installed packages
_PROGRAMS = Path(sys.executable).parent
_PATIENCE_S = 60


class Terminal(NamedTuple):
    """Where commands are run; in a network without a way out, unless the kernel permits none (then network is None)."""

    environment: dict[str, str]
    network: IsolatedNetwork | None

    def words(self, command, cwd):
        words = ["bash", "-euc", command]
        return self.network.words(*words, cwd=cwd) if self.network else words

    def finished(self, words, cwd):
        return subprocess.run(words, env=self.environment, cwd=cwd, capture_output=True, text=True, check=False)

    def run(self, command, cwd, *, outside=False):
        """What a command prints; it must end well, having looked up and called no other host."""
        done = self.finished(["bash", "-euc", command] if outside else self.words(command, cwd), cwd)
        assert done.returncode == 0, f"{command}\n{done.stdout[-1000:]}\n{done.stderr[-4000:]}"
        self.require_no_call(command)
        return done.stdout

    def require_no_call(self, command):
        if self.network:
            assert self.network.attempted() == [], command


def terminal_environment(network: IsolatedNetwork | None, **variables: object) -> dict[str, str]:
    """Variables of a user who has activated this environment; nothing of the test's own stores."""
    kept = network.environment if network else os.environ
    kept = {name: value for name, value in kept.items() if not name.startswith(("ZENML", "MLFLOW", "IMAGE_FINDER"))}
    path = f"{_PROGRAMS}:{os.environ['PATH']}"
    return {**kept, "PATH": path, **{name: str(value) for name, value in variables.items()}}


class Tmux:
    """A terminal of 60 lines with a shell."""

    def __init__(self, shell, folder, columns=120, **environment):
        self.socket = f"image-finder-{uuid.uuid4().hex[:8]}"
        variables = {"PATH": f"{_PROGRAMS}:{os.environ['PATH']}", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "TMUX"}}
        self.environment = {**kept, **variables, "HOME": str(folder), "PS1": "$ ", **environment}
        size = ["-x", str(columns), "-y", "60"]
        self.tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(folder), shell)

    def tmux(self, *words):
        command = ["tmux", "-L", self.socket, *words]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def type(self, *keys):
        self.tmux("send-keys", *keys)

    def screen(self, *, colours=False):
        return self.tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def wait_for(self, text):
        deadline = time.monotonic() + _PATIENCE_S
        while text not in (screen := self.screen()):
            assert time.monotonic() < deadline, f"no {text!r} in\n{screen}"
            time.sleep(0.1)
        return screen

    def run(self, command):
        """The screen, with colours, after a command."""
        self.type("clear; " + command + "; echo done=$?", "Enter")
        self.wait_for("done=0")
        return self.screen(colours=True)


def require_programs(*names):
    """Fail in CI and skip elsewhere if a program is missing."""
    for each in names:
        if shutil.which(each) is None:
            message = f"no {each} on PATH: apt-get install {each}"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
