"""Closing: after a run, where its results are and what to do next; on standard error."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from image_finder.components.home import home_root
from image_finder.components.text import shown_path

if TYPE_CHECKING:
    from image_finder.pipelines.stores import Home

_EXAMPLE_QUERY = "a dog running on the beach"


class Closing(NamedTuple):
    """Made before the run, which sets the variable that names the default home."""

    home: "Home"
    mlflow_uri: str | None
    is_default: bool

    @classmethod
    def of(cls, home: "Home", mlflow_uri: str | None) -> "Closing":
        return cls(home, mlflow_uri, home.root == home_root())

    def show(self, *commands: str) -> None:
        """Print the home, how to see runs and models, and the commands to run next."""
        from image_finder.pipelines.stores import store_url, tracking_uri

        uri = tracking_uri(self.home, self.mlflow_uri)
        option = "" if uri == self.home.mlflow_uri else f" --mlflow-uri {shlex.quote(uri)}"
        runs = "in the MLflow of the ZenML stack" if store_url() else f"image-finder ui{self.at_home}{option}"
        lines = [f"Stored in {shown_path(self.home.root)}", f"Runs and models: {runs}", "Next:"]
        click.echo("\n".join(["", *lines, *(f"  image-finder {command}" for command in commands)]), err=True)

    def search(self, query: str = _EXAMPLE_QUERY) -> str:
        return f'search "{query}"{self._option("library", self.home.library_dir)}'

    def serve(self) -> str:
        return f"serve{self._option('library', self.home.library_dir)}"

    @property
    def at_home(self) -> str:
        """The option that names the home, "" for the default one."""
        return self._option("home", self.home.root)

    def _option(self, name: str, path: Path) -> str:
        return "" if self.is_default else f" --{name} {shlex.quote(str(path))}"
