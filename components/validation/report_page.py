"""Page of a data validation: a report in, one self-contained HTML text out; knows nothing of how it was measured."""

from html import escape

from image_finder.components.records.data import ExpectationResult, ValidationReport

_MAX_IDS = 20
STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --good: #1a7f37; --bad: #c4302b; --warn: #9a6700; }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --bad: #ff7b72; --warn: #d9a63a; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
.verdict { border-left: .4rem solid; padding: .6rem 1rem; margin: 1rem 0; background: var(--soft); }
.verdict p { margin: 0; color: CanvasText; } .verdict strong { font-size: 1.15rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .7rem; border-bottom: 1px solid var(--line); }
th { white-space: nowrap; } td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.text { min-width: 20rem; } td ul { margin: .2rem 0 0; padding-left: 1.1rem; } td { overflow-wrap: anywhere; } td.word, td.name { white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); } .word { font-weight: 600; }
code { font-size: .95em; } small { opacity: .75; }
""".strip()


def report_html(report: ValidationReport) -> str:
    """A self-contained page (no scripts, nothing loaded) of report; every text of the data is escaped."""
    title = f"Data validation of {escape(report.dataset)}"
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>",
            f"<h1>{title}</h1>\n<small>data version <code>{escape(report.data_version)}</code></small>",
            _verdict(report),
            "<h2>Expectations</h2>",
            _expectations(report),
            "<h2>Quarantined captions by reason</h2>",
            _quarantine(report),
            "</body>\n</html>\n",
        ]
    )


def _verdict(report: ValidationReport) -> str:
    word, style = ("Passed", "good") if report.success else ("Refused", "bad")
    n_quarantined = report.n_captions - report.n_valid_captions
    failed = [result.name for result in report.expectations if result.severity == "error" and not result.success]
    warned = [result.name for result in report.expectations if result.severity == "warning" and not result.success]
    lines = [
        f"{report.n_valid_captions:,} of {report.n_captions:,} captions of {report.n_images:,} images are usable.",
        f"{n_quarantined:,} are quarantined ({_percent(report.quarantined_share)}, allowed {_percent(report.max_quarantined_share)}).",
    ]
    if failed:
        lines.append(f"Failed: {', '.join(failed)}.")
    if warned:
        lines.append(f"Warnings: {', '.join(warned)}.")
    paragraphs = "\n".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div class="verdict {style}" role="status">\n<strong>{word}</strong>\n{paragraphs}\n</div>'


def _expectations(report: ValidationReport) -> str:
    rows = [_expectation(result) for result in report.expectations]
    return _table(("Result", "Severity", "Expectation", "Measured", "Failed", "Checked"), rows)


def _expectation(result: ExpectationResult) -> str:
    word, style = ("passed", "good") if result.success else _FAILURE_WORDS[result.severity]
    examples = "".join(f"<li>{escape(example)}</li>" for example in result.examples)
    details = f"<ul>{examples}</ul>" if examples else ""
    name = f"<code>{escape(result.name)}</code> <small>{escape(result.column)}</small>"
    return (
        f'<tr><td class="word {style}">{word}</td><td class="name">{result.severity}</td>'
        f'<td class="text">{name}<br>{escape(result.description)}{details}</td><td>{escape(result.observed)}</td>'
        f'<td class="number">{result.n_failed:,}</td><td class="number">{result.n_checked:,}</td></tr>'
    )


_FAILURE_WORDS = {"error": ("failed", "bad"), "quarantine": ("removed rows", "warn"), "warning": ("warned", "warn")}


def _quarantine(report: ValidationReport) -> str:
    if not report.quarantined:
        return "<p>None.</p>"
    rows = []
    for reason, ids in sorted(report.quarantined.items(), key=lambda item: (-len(item[1]), item[0])):
        shown = ", ".join(map(str, ids[:_MAX_IDS]))
        more = f" and {len(ids) - _MAX_IDS:,} more" if len(ids) > _MAX_IDS else ""
        rows.append(
            f'<tr><td class="name"><code>{escape(reason)}</code></td><td class="number">{len(ids):,}</td>'
            f'<td class="number">{_percent(len(ids) / report.n_captions)}</td><td>{shown}{more}</td></tr>'
        )
    note = "<p><small>A caption may stand under several reasons; it is removed and counted once.</small></p>"
    return _table(("Reason", "Captions", "Share", "Caption ids"), rows) + "\n" + note


def _table(headings: tuple[str, ...], rows: list[str]) -> str:
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    return (
        f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n'
        + "\n".join(rows)
        + ("\n</tbody></table></div>")
    )


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
