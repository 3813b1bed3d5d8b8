"""Command `image-finder completion`: prints a script by which a shell completes the commands."""

import click
from click.shell_completion import get_completion_class

_VARIABLE = "_IMAGE_FINDER_COMPLETE"  # click derives it from the name of the program


@click.command(
    epilog="\b\nExamples:\n"
    "  image-finder completion bash >> ~/.bashrc\n"
    "  image-finder completion zsh >> ~/.zshrc\n"
    "  image-finder completion fish > ~/.config/fish/completions/image-finder.fish"
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes commands in a shell.

    It completes commands, options, their values, and the folders of the library after --folder.
    """
    root = context.find_root()
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(root.command, {}, "image-finder", _VARIABLE).source())
