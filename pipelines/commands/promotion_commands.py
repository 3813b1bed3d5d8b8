"""Commands `image-finder models promote` and `rollback`: change the champion and its index."""

from typing import TYPE_CHECKING

import click

from image_finder.pipelines.commands.options import ModelOptions, model_options, print_json

if TYPE_CHECKING:
    from image_finder.pipelines.model_operations import Change

_reason_option = click.option("--reason", default="", help="Reason to record in the ledger.")


@click.command(
    epilog="\b\nExamples:\n  image-finder models promote challenger\n"
    '  image-finder models promote 7 --force --reason "version 8 fails on street signs"'
)
@click.argument("version")
@click.option("--force", is_flag=True, help="Promote even if the promotion rule says no; requires --reason.")
@_reason_option
@model_options
def promote(version: str, *, force: bool, reason: str, as_json: bool, options: ModelOptions) -> None:
    """Make a version the champion if the rule allows it.

    The index of the new champion is restored or built as well.
    """
    if force and not reason.strip():
        raise click.UsageError("--force requires --reason, which is recorded in the ledger")
    from image_finder.pipelines import model_operations
    from image_finder.pipelines.report_text import checks_table

    registered = options.open()
    change = model_operations.promote(registered, version, force=force, reason=reason.strip())
    if not as_json and change.decision and change.decision.checks:
        click.echo(checks_table(change.decision.checks))
    _print_change(registered.name, change, as_json=as_json)


@click.command(epilog='\b\nExample:\n  image-finder models rollback --reason "version 8 fails on street signs"')
@_reason_option
@model_options
def rollback(*, reason: str, as_json: bool, options: ModelOptions) -> None:
    """Restore the previous champion and its index."""
    from image_finder.pipelines import model_operations

    registered = options.open()
    change = model_operations.rollback(registered, reason=reason.strip() or "no reason given")
    _print_change(registered.name, change, as_json=as_json)


def _print_change(model: str, change: "Change", *, as_json: bool) -> None:
    if as_json:
        print_json({**change._asdict(), "model": model})
        return
    if change.version == change.before:
        click.echo(f"{model} version {change.version} is already the champion")
    else:
        click.echo(f"{model} version {change.version} is now the champion (previous: {change.before or 'none'})")
    click.echo(change.index_text)
