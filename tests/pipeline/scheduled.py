"""A home for scheduled retraining: one process per command, alerts to a real receiver."""

import json
import os
import subprocess
import sys

import yaml
from mlflow.tracking import MlflowClient

from tests.support.checkout import CHECKOUT

_VARIABLES = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "ZENML_LOGGING_VERBOSITY": "INFO",  # its messages name the step that has started
}


class Scheduled:
    """A home, its data and an alert receiver. Commands run in forks of a process with all imports."""

    def __init__(self, folder, host, posts):
        self.folder, self.home, self.posts = folder, folder / "home", posts
        self._environment = {"IMAGE_FINDER_ALERTS": f"json://{host}/", "IMAGE_FINDER_ALERTS_ON": "always"}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ZENML", "MLFLOW", "IMAGE_"))}
        self._server = subprocess.Popen(
            [sys.executable, CHECKOUT / "tests" / "pipeline" / "retrain_children.py", self.home],
            cwd="/",
            env={**kept, **_VARIABLES, "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self):
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait()

    def begin(self, request):
        self.posts.clear()
        self._server.stdin.write(json.dumps({**request, "environment": self._environment}) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def end(self):
        return json.loads(self._server.stdout.readline())

    def run(self, *words):
        self.begin({"words": ["pipeline", *map(str, words)]})
        return self.end()

    def schedule(self, *words, kubernetes=None):
        command = ["pipeline", "schedule", "--on", "stack", *map(str, words)]
        self.begin({"words": command, **({"kubernetes": kubernetes} if kubernetes else {})})
        return self.end()

    def config(self, name, values, **more):
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"parameters": values, **more}))
        return path

    @property
    def alert(self):
        ((_, body),) = self.posts
        return body

    @property
    def champion(self):
        client = MlflowClient(f"sqlite:///{self.home / 'mlflow.db'}")
        return client.get_model_version_by_alias("image-finder", "champion")

    def state(self):
        """State that a failed run must not change."""
        return str(self.champion.version), (self.home / "library" / "index" / "CURRENT").read_bytes()

    def models(self, *words):
        self.begin({"words": ["models", *map(str, words)]})
        return self.end()

    def history(self):
        """The ledger as `models history --json` exports it."""
        return json.loads(self.models("history", "--json")["out"])

    def ledger(self):
        """Kinds of the ledger's entries, oldest first."""
        return [entry["kind"] for entry in self.history()["entries"]]
