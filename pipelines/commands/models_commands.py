"""Commands `image-finder models ...`: list, show, compare, promote and roll back models, and print the ledger."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from image_finder.components.text import counted
from image_finder.pipelines.commands import bundle_commands, import_commands
from image_finder.pipelines.commands.options import ModelOptions, model_options, print_json

if TYPE_CHECKING:
    from image_finder.components.records.base import PartName
    from image_finder.pipelines.model_operations import Change


@click.group(epilog="\b\nExample:\n  image-finder models list")
def models() -> None:
    """List, compare, promote and export registered models."""


@models.command(
    "list", epilog="\b\nExamples:\n  image-finder models list\n  image-finder models list --data 0123456789ab --json"
)
@click.option("--data", metavar="VERSION", help="Only versions trained on this data version (a prefix is enough).")
@model_options
def list_command(*, data: str | None, as_json: bool, options: ModelOptions) -> None:
    """List the versions of a model, newest first."""
    from image_finder.components.errors import ConfigError
    from image_finder.model_registry import names
    from image_finder.model_registry.comparison_text import versions_table
    from image_finder.pipelines.model_operations import pending

    registered = options.open()
    versions = registered.registry.versions(registered.name)
    if data is not None:
        known = sorted({each.tags.get(names.DATA_VERSION, "") for each in versions})
        versions = [each for each in versions if each.tags.get(names.DATA_VERSION, "").startswith(data)]
        if not versions:
            raise ConfigError(
                f"no version of '{registered.name}' was trained on data {data}; known data versions: {', '.join(known)}"
            )
    if as_json:
        print_json(versions)
    else:
        click.echo(versions_table(versions))
    for note in pending(registered):
        click.echo(note, err=True)


@models.command(epilog="\b\nExamples:\n  image-finder models show champion\n  image-finder models show 7 --card")
@click.argument("version")
@click.option("--card", is_flag=True, help="Print only the model card, as Markdown.")
@model_options
def show(version: str, *, card: bool, as_json: bool, options: ModelOptions) -> None:
    """Show a version's origin, measurements and ledger entries.

    VERSION is a number or an alias.
    """
    from image_finder.model_registry import names
    from image_finder.model_registry.comparison_text import history_text, origin_table
    from image_finder.pipelines.report_text import retrieval_table

    registered = options.open()
    registry, name = registered.registry, registered.name
    found = registry.version(name, version)
    if card:
        click.echo(registry.card_of(name, found.version))
        return
    report = registry.report_of(name, found.version)
    history = registered.promotions.history(name).entries
    entries = [entry for entry in history if found.version in {entry.from_version, entry.to_version}]
    page = registry.where(name, found.version, names.PROMOTION_ARTIFACT)
    if as_json:
        print_json(
            {
                "version": found,
                "report": report,
                "lineage": registry.lineage_of(name, found.version),
                "manifest": registry.manifest_of(name, found.version),
                "validation": registry.validation_of(name, found.version),
                "ledger": entries,
                "promotion_page": page,
            }
        )
        return
    aliases = f" ({', '.join(found.aliases)})" if found.aliases else ""
    click.echo(f"{name} version {found.version}{aliases}, registered {found.created:%Y-%m-%d %H:%M} UTC")
    click.echo(f"{origin_table(found)}\n\n{retrieval_table(report)}")
    if entries:
        click.echo(f"\n{history_text(entries)}")
    if page:
        click.echo(f"\npromotion page: {page}")


@models.command(
    epilog="\b\nExamples:\n  image-finder models compare challenger champion\n"
    "  image-finder models compare 2 1 --html comparison.html\n"
    "  image-finder models compare champion clip-bundle starter --data coco --html comparison.html"
)
@click.argument("chosen", metavar="MODEL MODEL...", nargs=-1, required=True)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Captioned images to measure all models on. Without it, the reports of two versions are compared; with --html, "
    "all are measured on the test images of the first version.",
)
@bundle_commands.part_option
@bundle_commands.captions_option
@bundle_commands.seed_option
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a page: the table, and queries on which the models differ, with their images.",
)
@model_options
def compare(
    chosen: tuple[str, ...],
    *,
    data: Path | None,
    part: "PartName | None",
    captions: int | None,
    seed: int,
    html: Path | None,
    as_json: bool,
    options: ModelOptions,
) -> None:
    """Compare models with intervals, each with the first.

    A MODEL is a registered version or alias and, with --data, also the folder of a bundle or "starter". The page shows the
    nearest images of every model for the queries on which they differ most.
    """
    if len(chosen) < 2:
        raise click.UsageError("name two models")
    if data is None and len(chosen) > 2:
        raise click.UsageError("more than two models need --data")
    if data is None and html is None:
        _compare_reports(chosen[0], chosen[1], as_json=as_json, options=options)
        return
    from image_finder.components.configs import EvaluationConfig
    from image_finder.components.evaluation.models_compared import compared, comparison_page, comparison_text
    from image_finder.components.evaluation.queries_compared import RankedModel, compare_queries
    from image_finder.components.storage import write_text_atomically
    from image_finder.components.temporaries import scratch_directory
    from image_finder.pipelines.model_operations import held_out_images

    config = EvaluationConfig(captions_per_image=captions, seed=seed)
    captioned = bundle_commands.captioned_part(data, part) if data else held_out_images(options.open(), chosen[0])
    measured, ranked = [], []
    with scratch_directory() as folder:
        for number, name in enumerate(chosen):
            bundle = options.bundle(name, Path(folder) / str(number))
            imported = bundle.manifest.imported
            origin = f"imported from {imported.origin}" if imported else f"trained on {bundle.manifest.dataset}"
            label = Path(name).resolve().name if Path(name).is_dir() else f"version {name}" if name.isdigit() else name
            measured.append((label, origin, captioned.measured(bundle, config)))
            ranked.append(RankedModel(label, bundle, measured[-1][2].ranks.text_to_image))
        models_compared = compared(measured)
        if html is not None:
            queries = compare_queries(ranked, captioned.data.first_captions(captions))
            write_text_atomically(html.resolve(), comparison_page(models_compared, queries))
    if as_json:
        print_json([each.model_dump(mode="json") for each in models_compared])
    else:
        click.echo(comparison_text(models_compared))


def _compare_reports(first: str, second: str, *, as_json: bool, options: ModelOptions) -> None:
    from image_finder.model_registry.comparison_text import compare_text
    from image_finder.model_registry.decision import compare_stored

    registered = options.open()
    sides = registered.side(first), registered.side(second)
    first, second = (side.version.version for side in sides)
    comparison = compare_stored(registered.registry, registered.name, first, second)
    if as_json:
        values = {
            name: {"version": side.version, "report": side.report}
            for name, side in zip(("first", "second"), sides, strict=True)
        }
        print_json({**values, "comparison": comparison})
    else:
        click.echo(compare_text(*sides, comparison))


@models.command(epilog="\b\nExample:\n  image-finder models register clip-bundle --data coco")
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@bundle_commands.data_option
@bundle_commands.part_option
@bundle_commands.captions_option
@model_options
def register(
    bundle: Path, *, data: Path, part: "PartName | None", captions: int | None, as_json: bool, options: ModelOptions
) -> None:
    """Register an imported bundle as a version of a model.

    It is measured on captioned images first, and becomes challenger. `models promote` then compares it with the champion.
    """
    from image_finder.components.bundle.bundle import Bundle
    from image_finder.components.configs import EvaluationConfig, RegistryConfig
    from image_finder.pipelines import imported_models
    from image_finder.pipelines.stores import Home, existing_registry

    opened = Bundle.open(bundle.resolve())
    home = Home.resolve(options.home)
    uri = existing_registry(home, options.mlflow_uri)
    name = options.model or RegistryConfig().model_name
    captioned = bundle_commands.captioned_part(data, part)
    evaluation = EvaluationConfig(captions_per_image=captions)
    version = imported_models.register(home, uri, name, opened, captioned, evaluation=evaluation)
    if as_json:
        print_json(version)
        return
    recall = 100 * float(version.tags["mean_recall"])
    click.echo(
        f"{name} version {version.version} registered as challenger: mean recall {recall:.1f} on {captioned.identity.dataset} {captioned.identity.split}"
    )
    click.echo(f"To use it: image-finder models promote {version.version} --data {shlex.quote(str(data))}", err=True)


@models.command(
    epilog="\b\nExamples:\n  image-finder models history\n  image-finder models history --json > ledger.json\n"
    "  image-finder models history --anchor 12:SHA256"
)
@click.option("--anchor", metavar="N:SHA256", help="Entry noted earlier; fail unless the ledger still contains it.")
@model_options
def history(*, anchor: str | None, as_json: bool, options: ModelOptions) -> None:
    """Print and verify the ledger of promotions and rollbacks.

    It records every decision, promotion and rollback. The exit code is 1 if entries were changed or removed.
    """
    from image_finder.model_registry.comparison_text import history_text
    from image_finder.pipelines.model_operations import pending

    registered = options.open()
    notes = pending(registered)
    found = registered.promotions.history(registered.name)
    faults = [fault.text for fault in found.faults]
    if anchor is not None and anchor not in {f"{entry.n}:{entry.sha256}" for entry in found.entries}:
        faults.append(f"there is no entry {anchor}: the ledger was rewritten, or the anchor is from another ledger")
    if as_json:
        print_json(
            {"model": registered.name, "entries": found.entries, "faults": faults, "notes": [*found.notes, *notes]}
        )
    elif found.entries:
        last = found.entries[-1]
        click.echo(history_text(found.entries))
        click.echo(f"\n{counted(len(found.entries), 'entry', 'entries')}, anchor {last.n}:{last.sha256}")
    for note in (*found.notes, *notes):
        click.echo(note, err=True)
    if faults:
        for fault in faults:
            click.echo(f"DAMAGED: {fault}", err=True)
        raise click.ClickException(
            f"the ledger of '{registered.name}' has {counted(len(faults), 'fault')}; only the entries printed "
            "above can be trusted. Compare it with an exported ledger or restore the registry's backup; new entries can "
            "still be appended"
        )
    if not found.entries:
        click.echo(f"the ledger of '{registered.name}' is empty", err=True)


_reason_option = click.option("--reason", default="", help="Reason to record in the ledger.")


@models.command(
    epilog="\b\nExamples:\n  image-finder models promote challenger\n"
    '  image-finder models promote 7 --force --reason "version 8 fails on street signs"'
)
@click.argument("version")
@click.option("--force", is_flag=True, help="Promote even if the promotion rule says no; requires --reason.")
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Captioned images to measure both versions on.  [default: compare the stored measurements]",
)
@bundle_commands.part_option
@_reason_option
@model_options
def promote(
    version: str,
    *,
    force: bool,
    data: Path | None,
    part: "PartName | None",
    reason: str,
    as_json: bool,
    options: ModelOptions,
) -> None:
    """Make a version the champion if the rule allows it.

    The index of the new champion is restored or built as well.
    """
    if force and not reason.strip():
        raise click.UsageError("--force requires --reason, which is recorded in the ledger")
    if force and data:
        raise click.UsageError("--force asks no rule, so it needs no --data")
    from image_finder.pipelines import model_operations
    from image_finder.pipelines.report_text import checks_table

    registered = options.open()
    captioned = bundle_commands.captioned_part(data, part) if data else None
    change = model_operations.promote(registered, version, force=force, reason=reason.strip(), part=captioned)
    if not as_json and change.decision and change.decision.checks:
        click.echo(checks_table(change.decision.checks))
    _print_change(registered.name, change, as_json=as_json)


@models.command(epilog='\b\nExample:\n  image-finder models rollback --reason "version 8 fails on street signs"')
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
    if change.page:
        click.echo(f"promotion page: {change.page}")


for command in (
    bundle_commands.fetch,
    bundle_commands.evaluate,
    bundle_commands.pack,
    import_commands.import_command,
    import_commands.known,
):
    models.add_command(command)
