"""A terminal for commands of the documents, in a network without a way out."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.e2e.isolated_network import IsolatedNetwork

CACHES = re.compile(r"\.(cache|config)/(matplotlib|uv)/")  # of fonts and installed packages


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
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, **{name: str(value) for name, value in variables.items()}}
