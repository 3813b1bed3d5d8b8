"""Expectations: validates a captions table with Great Expectations; knows nothing of files or models.

Facts are computed as columns (occurrences of an id, tokens, state of the image) and rules are applied to them; a null
fact is not checked. Only this file imports great_expectations, and only for a validation, since the import takes 6 to 8
s, which gates, reports and the command line must not pay.

Stages, each on the rows that the previous one kept: tables and ids, single captions, captions of an image, the rest.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from pandas import DataFrame

from image_finder.components.arrays import IntArray
from image_finder.components.configs import ValidationConfig
from image_finder.components.errors import DataError, QualityError
from image_finder.components.records.data import DatasetManifest, ExpectationResult, ValidationReport
from image_finder.components.text import one_line, shortened
from image_finder.components.validation import facts
from image_finder.components.validation.rules import REPEATED_ID, Rule, rules

_MAX_EXAMPLES = 5
_MAX_EXAMPLE_CHARACTERS = 80


def validate_captions(
    captions: DataFrame,
    images: DataFrame,
    manifest: DatasetManifest,
    config: ValidationConfig,
    *,
    token_counts: IntArray,
    previous: DatasetManifest | None = None,
) -> ValidationReport:
    """Check captions and images against every rule; bad rows are quarantined by id, not raised.

    captions, images: see captions_table and inspection. If parts share caption ids (Flickr8k counts from 1 in each),
    the reasons name the part: "image_missing@val". token_counts: (n_captions,) tokens without the special ones.
    previous: manifest of the previous data version, to measure drift. Columns of wrong types end the validation after
    its first rules. Raises DataError for missing or unexpected columns, and for another number of token_counts.
    """
    facts.require_columns("captions", captions, facts.CAPTION_COLUMNS)
    facts.require_columns("images", images, facts.IMAGE_COLUMNS)
    if token_counts.shape != (len(captions),):
        raise DataError(
            f"token_counts has shape {token_counts.shape}, expected ({len(captions)},), one count for each caption"
        )
    run = _Validation(config, manifest.extra_sets)
    run.check("types", facts.type_facts(captions, images))
    n_images, usable = 0, captions
    if run.passed:
        images = facts.as_typed(images, facts.IMAGE_COLUMNS)
        usable = facts.as_typed(captions, facts.CAPTION_COLUMNS)
        usable = usable.assign(tokens=token_counts, scope=facts.id_scopes(usable))
        n_images = len(usable[facts.IMAGE_KEY].drop_duplicates())
        run.check("tables", usable)
        run.check("images", facts.image_facts(usable))
        run.check("contents", facts.content_facts(images))
        usable = run.quarantine(usable, "ids", facts.id_facts(usable))
        usable = run.quarantine(usable, "captions", facts.caption_facts(usable, images))
        usable = run.quarantine(usable, "ranks", facts.rank_facts(usable))
        run.check("parts", facts.part_facts(usable, manifest))
        run.check("texts", facts.text_facts(usable))
        if previous is not None:
            run.check("drift", facts.drift_facts(manifest, previous))
    n_captions, n_usable = len(captions), len(usable)
    # Not 1 - n_usable / n_captions, which is slightly above 0.02 for 2 of 100, so that a gate at 0.02 would refuse it.
    share = (n_captions - n_usable) / n_captions if n_captions else 0.0
    return ValidationReport(
        dataset=manifest.name,
        data_version=manifest.version,
        n_images=n_images,
        n_captions=n_captions,
        n_valid_captions=n_usable,
        expectations=tuple(run.results),
        quarantined=run.quarantined,
        max_quarantined_share=config.max_quarantined_share,
        success=run.passed and share <= config.max_quarantined_share,
    )


class _Validation:
    """The results so far, and the ids of quarantined captions by reason."""

    def __init__(self, config: ValidationConfig, extra_sets: Sequence[str]) -> None:
        self.results: list[ExpectationResult] = []
        self.quarantined: dict[str, tuple[int, ...]] = {}
        self._rules = rules(config, extra_sets)

    @property
    def passed(self) -> bool:
        return all(result.success for result in self.results if result.severity == "error")

    def check(self, stage: str, frame: DataFrame) -> list[IntArray]:
        """Apply the rules of a stage; returns the rows that failed each."""
        found = _measured(stage, frame, self._rules[stage])
        self.results += [result for result, _ in found]
        return [rows for _, rows in found]

    def quarantine(self, captions: DataFrame, stage: str, frame: DataFrame) -> DataFrame:
        """The captions that fail no rule of a stage. frame: facts, a row for each caption."""
        failed = np.zeros(len(captions), dtype=bool)
        for rule, rows in zip(self._rules[stage], self.check(stage, frame), strict=True):
            if rows.size:
                failed[rows] = True
                for scope, ids in captions["caption_id"].iloc[rows].groupby(captions["scope"]):
                    self.quarantined[f"{rule.name}{scope}"] = tuple(ids.tolist())
        return captions[~failed].reset_index(drop=True)


def valid_captions(captions: DataFrame, report: ValidationReport) -> DataFrame:
    """The captions that the report did not quarantine, in order, with a fresh index.

    Of captions with one id in one part, only the first was validated; the others are dropped in any case.
    """
    reasons = [(*key.partition(facts.SCOPE), ids) for key, ids in report.quarantined.items()]
    removed = np.zeros(len(captions), dtype=bool)
    for reason, _, part, ids in reasons:
        if reason == REPEATED_ID:
            removed |= captions.duplicated(["part", "caption_id"], keep="first").to_numpy()
        else:
            inside = captions["part"].eq(part).to_numpy() if part else True
            removed |= captions["caption_id"].isin(ids).to_numpy() & inside
    return captions[~removed].reset_index(drop=True)


def require_valid(report: ValidationReport) -> None:
    """Gate. Raises QualityError with every failed "error" rule, or the quarantined share."""
    if report.success:
        return
    faults = [
        _error_text(result) for result in report.expectations if result.severity == "error" and not result.success
    ]
    n_quarantined = report.n_captions - report.n_valid_captions
    if report.quarantined_share > report.max_quarantined_share:
        measured = f"{n_quarantined:,} of {report.n_captions:,} captions quarantined"
        shares = f"{100 * report.quarantined_share:.4g}%, allowed {100 * report.max_quarantined_share:.4g}%"
        faults.append(f"{measured} ({shares}): {_reasons_text(report)}")
    advice = "correct the data, or change the limits of the validation"
    raise QualityError(f"data set {report.dataset} {report.data_version} refused: {'; '.join(faults)}; {advice}")


def _error_text(result: ExpectationResult) -> str:
    example = f", e.g. {result.examples[0]}" if result.examples else ""
    return f"{result.name}: {result.description}, measured {result.observed}{example}"


def _reasons_text(report: ValidationReport) -> str:
    """The three most frequent reasons with count, first ids and, for images, the first example."""
    examples = {
        each.name: f"; {each.examples[0]}"
        for each in report.expectations
        if each.examples and "file_name" in each.column
    }
    biggest = sorted(report.quarantined.items(), key=lambda item: (-len(item[1]), item[0]))[:3]
    texts = [
        f"{reason} {len(ids):,} (caption ids {', '.join(map(str, ids[:3]))}{', ...' if len(ids) > 3 else ''}{examples.get(reason, '')})"
        for reason, ids in biggest
    ]
    return ", ".join(texts)


# Great Expectations


def _measured(name: str, frame: DataFrame, stated: list[Rule]) -> list[tuple[ExpectationResult, IntArray]]:
    """Apply rules to a frame in an ephemeral context; returns each result and the rows that failed.

    Row positions come from the frame's index: GX's unexpected_index_column_names builds a dictionary for each failed
    row in pandas, 10 instead of 0.1 s for 300,000 rows (great-expectations 1.24, 2 cores).
    """
    with warnings.catch_warnings():
        # great_expectations 1.24 imports sre_constants and sre_parse, deprecated in Python 3.11.
        warnings.filterwarnings("ignore", r"module 'sre_\w+' is deprecated", DeprecationWarning)
        import great_expectations as gx
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )
        from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    settings = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        progress_bars=ProgressBarsConfig(globally=False),
        analytics_enabled=False,
    )
    context = gx.get_context(project_config=settings, mode="ephemeral")
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    frame = frame.reset_index(drop=True)
    # GX hashes every frame, so the texts that only examples use would take two thirds of the time.
    checked = frame[sorted({column for rule in stated if (column := rule.expectation.arguments.get("column"))})]
    batch = asset.add_batch_definition_whole_dataframe(name).get_batch({"dataframe": checked})
    expectations = [
        ExpectationConfiguration(
            type=rule.expectation.type, kwargs=dict(rule.expectation.arguments), meta={"rule": position}
        ).to_domain_obj()
        for position, rule in enumerate(stated)
    ]
    suite = gx.ExpectationSuite(name=name, expectations=expectations)
    result_format = {"result_format": "COMPLETE", "return_unexpected_index_query": False}
    report = batch.validate(suite, result_format=result_format)
    configured = [(result.expectation_config, result) for result in report.results]
    by_rule = {setting.meta["rule"]: result for setting, result in configured if setting}  # GX regroups them
    return [_result(rule, by_rule[position], frame) for position, rule in enumerate(stated)]


def _result(rule: Rule, measured: Any, frame: DataFrame) -> tuple[ExpectationResult, IntArray]:  # noqa: ANN401 # GX's own result class
    values = measured.result
    if not values:  # GX catches exceptions of its metrics
        raise DataError(f"expectation {rule.name} could not be evaluated: {one_line(measured.exception_info)}")
    rows = np.asarray(values.get("unexpected_index_list") or [], dtype=np.int64)
    if "element_count" in values:
        n_checked = int(values["element_count"]) - int(values.get("missing_count", 0))
        n_failed = int(values["unexpected_count"])
        observed = f"{n_failed:,} of {n_checked:,}" + (f" ({n_failed / n_checked:.2%})" if n_failed else "")
    else:
        n_checked, n_failed = len(frame), int(not measured.success)
        observed = str(values["observed_value"])
    if rule.observed:
        observed = _filled(rule.observed, frame, 0)
    examples = [_filled(rule.example, frame, int(row)) for row in rows[:_MAX_EXAMPLES]] if rule.example else []
    result = ExpectationResult(
        name=rule.name,
        column=rule.column,
        description=rule.description,
        severity=rule.severity,
        success=bool(measured.success),
        n_checked=n_checked,
        n_failed=n_failed,
        observed=observed,
        examples=tuple(examples),
    )
    return result, rows


def _filled(template: str, frame: DataFrame, row: int) -> str:
    return template.format_map({str(column): _clipped(frame[column].iloc[row]) for column in frame.columns})


def _clipped(value: object) -> object:
    return shortened(value, _MAX_EXAMPLE_CHARACTERS) if isinstance(value, str) else value
