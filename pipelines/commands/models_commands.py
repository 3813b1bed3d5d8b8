"""Commands `image-finder models ...`: what a person types to look at, promote, roll back and fetch models."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from image_finder.components.records.base import PartName
from image_finder.components.starter import MAX_MB
from image_finder.components.text import shown_path

_F = TypeVar("_F", bound=Callable[..., Any])


def _common(command: _F) -> _F:
    """Options every command has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option("--model", metavar="NAME", help="Registered model.  [default: image-finder, or the only one]"),
        click.option("--mlflow-uri", help="MLflow server or database.  [default: SQLite in the home]"),
        click.option(
            "--home",
            type=click.Path(file_okay=False, path_type=Path),
            envvar="IMAGE_FINDER_HOME",
            help="Folder of all stores and caches.  [default: the user's data folder]",
        ),
    ):
        command = option(command)
    return command


@click.group(epilog="\b\nExample:\n  image-finder models list")
def models() -> None:
    """Look at, compare, promote, roll back and fetch registered models."""


@models.command(
    "list", epilog="\b\nExamples:\n  image-finder models list\n  image-finder models list --data 0123456789ab --json"
)
@click.option("--data", metavar="VERSION", help="Only versions trained on this data version (its first digits do).")
@_common
def list_command(
    *, data: str | None, home: Path | None, mlflow_uri: str | None, model: str | None, as_json: bool
) -> None:
    """List the versions of a model, newest first."""
    from image_finder.components.errors import ConfigError
    from image_finder.model_registry import names
    from image_finder.model_registry.comparison_text import versions_table
    from image_finder.pipelines.model_operations import open_model, pending

    registered = open_model(home, mlflow_uri, model)
    versions = registered.registry.versions(registered.name)
    if data is not None:
        known = sorted({each.tags.get(names.DATA_VERSION, "") for each in versions})
        versions = [each for each in versions if each.tags.get(names.DATA_VERSION, "").startswith(data)]
        if not versions:
            raise ConfigError(
                f"no version of '{registered.name}' was trained on data {data}; known are {', '.join(known)}"
            )
    if as_json:
        _print_json([each.model_dump(mode="json") for each in versions])
    else:
        click.echo(versions_table(versions))
    for note in pending(registered):
        click.echo(note, err=True)


@models.command(epilog="\b\nExamples:\n  image-finder models show champion\n  image-finder models show 7 --card")
@click.argument("version")
@click.option("--card", is_flag=True, help="Print the model card, Markdown, and nothing else.")
@_common
def show(
    version: str, *, card: bool, home: Path | None, mlflow_uri: str | None, model: str | None, as_json: bool
) -> None:
    """Show where a version (number or alias) comes from, what was measured, and what the ledger says of it."""
    from image_finder.model_registry.comparison_text import history_text, origin_table
    from image_finder.pipelines.model_operations import open_model
    from image_finder.pipelines.report_text import retrieval_table

    registered = open_model(home, mlflow_uri, model)
    found = registered.registry.version(registered.name, version)
    if card:
        click.echo(registered.registry.card_of(registered.name, found.version))
        return
    report = registered.registry.report_of(registered.name, found.version)
    entries = [
        entry
        for entry in registered.promotions.history(registered.name).entries
        if found.version in {entry.from_version, entry.to_version}
    ]
    if as_json:
        registry = registered.registry
        records = {
            "version": found,
            "report": report,
            "lineage": registry.lineage_of(registered.name, found.version),
            "manifest": registry.manifest_of(registered.name, found.version),
            "validation": registry.validation_of(registered.name, found.version),
        }
        shown = {key: record.model_dump(mode="json") if record else None for key, record in records.items()}
        _print_json({**shown, "ledger": [entry.model_dump(mode="json") for entry in entries]})
        return
    aliases = f" ({', '.join(found.aliases)})" if found.aliases else ""
    click.echo(f"{registered.name} version {found.version}{aliases}, registered {found.created:%Y-%m-%d %H:%M} UTC")
    click.echo(f"{origin_table(found)}\n\n{retrieval_table(report)}")
    if entries:
        click.echo(f"\n{history_text(entries)}")


@models.command(
    epilog="\b\nExamples:\n  image-finder models compare challenger champion\n  image-finder models compare 7 5"
)
@click.argument("first")
@click.argument("second")
@_common
def compare(
    first: str, second: str, *, home: Path | None, mlflow_uri: str | None, model: str | None, as_json: bool
) -> None:
    """Print the reports of two versions side by side, with intervals and differences."""
    from image_finder.model_registry.comparison_text import compare_text
    from image_finder.model_registry.decision import compare_stored
    from image_finder.pipelines.model_operations import open_model

    registered = open_model(home, mlflow_uri, model)
    sides = registered.side(first), registered.side(second)
    comparison = compare_stored(
        registered.registry, registered.name, sides[0].version.version, sides[1].version.version
    )
    if as_json:
        values = {
            name: {"version": side.version.model_dump(mode="json"), "report": side.report.model_dump(mode="json")}
            for name, side in zip(("first", "second"), sides, strict=True)
        }
        _print_json({**values, "comparison": comparison.model_dump(mode="json") if comparison else None})
    else:
        click.echo(compare_text(*sides, comparison))


@models.command(
    epilog="\b\nExamples:\n  image-finder models promote challenger\n"
    '  image-finder models promote 7 --force --reason "version 8 fails on street signs"'
)
@click.argument("version")
@click.option("--force", is_flag=True, help="Promote whatever the rule says; needs --reason.")
@click.option("--reason", default="", help="Why; kept in the ledger.")
@_common
def promote(
    version: str,
    *,
    force: bool,
    reason: str,
    home: Path | None,
    mlflow_uri: str | None,
    model: str | None,
    as_json: bool,
) -> None:
    """Make a version champion if the promotion rule allows it, and bring its index."""
    from image_finder.pipelines import model_operations
    from image_finder.pipelines.report_text import checks_table

    if force and not reason.strip():
        raise click.UsageError("--force needs --reason: it is kept in the ledger")
    registered = model_operations.open_model(home, mlflow_uri, model)
    change = model_operations.promote(registered, version, force=force, reason=reason.strip())
    if not as_json and change.decision and change.decision.checks:
        click.echo(checks_table(change.decision.checks))
    _print_change(registered.name, change, as_json=as_json)


@models.command(epilog='\b\nExample:\n  image-finder models rollback --reason "version 8 fails on street signs"')
@click.option("--reason", default="", help="Why; kept in the ledger.")
@_common
def rollback(*, reason: str, home: Path | None, mlflow_uri: str | None, model: str | None, as_json: bool) -> None:
    """Make the previous version champion again, its model and its index."""
    from image_finder.pipelines import model_operations

    registered = model_operations.open_model(home, mlflow_uri, model)
    change = model_operations.rollback(registered, reason=reason.strip() or "no reason given")
    _print_change(registered.name, change, as_json=as_json)


@models.command(
    epilog="\b\nExamples:\n  image-finder models history\n  image-finder models history --json > ledger.json\n"
    "  image-finder models history --anchor 12:SHA256"
)
@click.option(
    "--anchor", metavar="N:SHA256", help="An entry as it was noted elsewhere; fails unless the ledger still has it."
)
@_common
def history(*, anchor: str | None, home: Path | None, mlflow_uri: str | None, model: str | None, as_json: bool) -> None:
    """Print and verify the ledger: every decision, promotion and rollback. Exits with 1 when it was tampered with."""
    from image_finder.model_registry.comparison_text import history_text
    from image_finder.pipelines.model_operations import open_model, pending

    registered = open_model(home, mlflow_uri, model)
    notes = pending(registered)
    found = registered.promotions.history(registered.name)
    faults = [fault.text for fault in found.faults]
    last = found.entries[-1] if found.entries else None
    if anchor is not None and anchor not in {f"{entry.n}:{entry.sha256}" for entry in found.entries}:
        faults.append(f"there is no entry {anchor}: the ledger was rewritten, or the anchor is of another one")
    if as_json:
        _print_json(
            {
                "model": registered.name,
                "entries": [entry.model_dump(mode="json") for entry in found.entries],
                "faults": faults,
                "notes": [*found.notes, *notes],
            }
        )
    elif last is not None:
        click.echo(history_text(found.entries))
        click.echo(f"\n{len(found.entries)} entries, anchor {last.n}:{last.sha256}")
    for note in (*found.notes, *notes):
        click.echo(note, err=True)
    if faults:
        for fault in faults:
            click.echo(f"DAMAGED: {fault}", err=True)
        raise click.ClickException(
            f"the ledger of '{registered.name}' is damaged in {len(faults)} places; what is printed is what can be trusted. "
            "Compare with an exported ledger or restore the registry's backup; new entries can be appended"
        )
    if not found.entries:
        click.echo(f"the ledger of '{registered.name}' is empty", err=True)


@models.command(
    epilog="\b\nExample:\n  image-finder models fetch --alias champion --to champion && image-finder index IMAGES --bundle champion"
)
@click.option("--alias", "version", default="champion", show_default=True, metavar="ALIAS|N", help="Alias or version.")
@click.option("--to", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@_common
def fetch(
    version: str, *, to: Path, home: Path | None, mlflow_uri: str | None, model: str | None, as_json: bool
) -> None:
    """Bring the bundle of a version to a folder, whole or not at all, and verify it. It needs no registry afterwards."""
    from image_finder.pipelines import model_operations

    registered = model_operations.open_model(home, mlflow_uri, model)
    found = registered.registry.version(registered.name, version)
    bundle = model_operations.fetch(registered, found.version, to)
    if as_json:
        _print_json(
            {"model": registered.name, "version": found.version, "path": str(bundle.path), "sha256": bundle.sha256}
        )
        return
    click.echo(
        f"{registered.name} version {found.version} in {shown_path(bundle.path)}, {len(bundle.manifest.files_sha256)} files verified"
    )
    click.echo(f"search with it: image-finder index IMAGES --bundle {shlex.quote(str(bundle.path))}", err=True)


@models.command(
    epilog="\b\nExamples:\n  image-finder models evaluate champion-bundle --data coco\n"
    "  image-finder models evaluate champion-bundle --data flickr8k --part val --json"
)
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Captioned images: annotations/captions_*.json (COCO) or huggingface/*.parquet.",
)
@click.option(
    "--part", type=click.Choice(get_args(PartName)), help="Part to measure on.  [default: test, val or train]"
)
@click.option(
    "--captions", type=click.IntRange(1), metavar="N", help="Only the first N captions of each image; COCO takes 5."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the bootstrap intervals.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(
    bundle: Path, *, data: Path, part: PartName | None, captions: int | None, seed: int, as_json: bool
) -> None:
    """Measure a bundle, whoever trained it, on captioned images of yours: recall both ways, slices, time, size.

    It is measured as `models promote` measures, through the exported towers. Whether the bundle was trained on the same
    images is not known here.
    """
    from image_finder.components.bundle.bundle import Bundle
    from image_finder.components.configs import EvaluationConfig
    from image_finder.components.evaluation.folder_recall import measure_on_folder
    from image_finder.pipelines.report_text import measurement_text

    config = EvaluationConfig(captions_per_image=captions, seed=seed)
    opened = Bundle.open(bundle.resolve(), verify=True)
    found = measure_on_folder(opened, data.resolve(), part, config)
    if as_json:
        counts = {"captions": found.n_captions, "left_out": found.n_left_out}
        _print_json(
            {
                **found.measurement.model_dump(mode="json", exclude={"code_sha256"}),
                **counts,
                "bundle_sha256": opened.sha256,
            }
        )
        return
    if found.n_left_out:
        click.echo(
            f"{found.n_left_out:,} of {found.n_captions:,} captions were left out, `image-finder data check` tells why",
            err=True,
        )
    click.echo(measurement_text(found.measurement))


@models.command(
    epilog="\b\nExample:\n  image-finder models pack champion --model image-finder-starter --to starter --measure-on flickr8k"
)
@click.argument("version")
@click.option("--to", required=True, type=click.Path(path_type=Path), help="Folder to make, or to replace as a whole.")
@click.option(
    "--measure-on",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Captioned images to measure it on, for its card: part test, else val. May be given again.",
)
@click.option(
    "--max-mb",
    type=click.FloatRange(min=0, min_open=True),
    default=MAX_MB,
    show_default=True,
    help="Size of its weights; what the trunk learned is cut to what the heads leave of it.",
)
@_common
def pack(
    version: str,
    *,
    to: Path,
    measure_on: tuple[Path, ...],
    max_mb: float,
    home: Path | None,
    mlflow_uri: str | None,
    model: str | None,
    as_json: bool,
) -> None:
    """Write what a version learned, without its packaged trunks and in 8 bits: the starter model of a package.

    The run that trained it must be in the home. Its card tells what was measured then, and what the packed weights find
    in each --measure-on.
    """
    from image_finder.pipelines import packing
    from image_finder.pipelines.model_operations import open_model

    packed = packing.pack(
        open_model(home, mlflow_uri, model), version, to.resolve(), measure_on=measure_on, max_mb=max_mb
    )
    if as_json:
        _print_json(
            {
                "manifest": packed.manifest.model_dump(mode="json"),
                "weights_bytes": packed.weights_bytes,
                "measured": [each.model_dump(mode="json", exclude={"code_sha256"}) for each in packed.measured],
            }
        )
    else:
        click.echo(packing.packed_text(packed, to))


def _print_change(model: str, change: Any, *, as_json: bool) -> None:  # noqa: ANN401 - its module is heavy
    if as_json:
        decision = change.decision.model_dump(mode="json") if change.decision else None
        _print_json({**change._asdict(), "model": model, "decision": decision})
        return
    if change.version == change.before:
        click.echo(f"{model} version {change.version} is champion already")
    else:
        click.echo(f"{model} version {change.version} is champion, version {change.before or 'none'} was")
    click.echo(change.index_text)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))
