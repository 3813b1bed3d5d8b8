"""Command line `image-finder`: loads each command from its entry point when it is called."""

import difflib
import os
from importlib import metadata
from typing import Any

import click

from image_finder.components.app.error_boundary import COMMANDS, shown_to_user
from image_finder.components.app.standard_streams import guarded_streams
from image_finder.components.installation import PACKAGE


class CommandsByEntryPoint(click.Group):
    """Command group of the entry points `image_finder.commands` of all installed packages.

    Modules of commands must import quickly: the help of the group imports all of them.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as click declares it
        """Run the command line; standard streams may be full or closed."""
        with guarded_streams():
            return super().main(*args, **kwargs)

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - as click declares it
    ) -> click.Context:
        """Print without colour if NO_COLOR is set (https://no-color.org), and where no terminal is."""
        if os.environ.get("NO_COLOR"):
            extra.setdefault("color", False)
        return super().make_context(info_name, args, parent, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({point.name for point in metadata.entry_points(group=COMMANDS)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if unknown. Raises ClickException if a package is missing.

        A shell that completes a command line is offered only what can run.
        """
        for point in metadata.entry_points(group=COMMANDS, name=cmd_name):
            try:
                with shown_to_user():
                    command = point.load()
            except click.ClickException:
                if ctx.resilient_parsing:
                    return None
                raise
            if isinstance(command, click.Command):
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List all commands; one that cannot be imported shows what it needs."""
        rows = []
        for name in self.list_commands(ctx):
            try:
                command = self.get_command(ctx, name)
                rows.append((name, command.get_short_help_str(limit=200) if command else ""))
            except click.ClickException as error:
                rows.append((name, f"({error.message})"))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that args start with. For an unknown one, suggests similar names."""
        name = args[0]
        if ctx.resilient_parsing or name.startswith("-") or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        known = self.list_commands(ctx)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"
        raise click.UsageError(f"no command '{name}': {hint}", ctx)

    def invoke(self, ctx: click.Context) -> object:
        with shown_to_user():
            return super().invoke(ctx)


@click.group(
    cls=CommandsByEntryPoint,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample:\n  image-finder search a dog running on the beach",
)
@click.version_option(package_name=PACKAGE, prog_name="image-finder")
def main() -> None:
    """Find images by describing them; train and publish the model."""
