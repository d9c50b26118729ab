"""The report of benchmarks: one self-contained page with a table per benchmark, what was skipped and why, and the clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visviva.eval.benchmarks.result import Result
from visviva.eval.page import Page
from visviva.eval.run import provenance
from visviva.eval.score import Score

STANDING = {
    "exact": "agrees with the published code on golden numbers",
    "reconstruction": "a reconstruction: the paper publishes no formula, the definition is ours; do not compare with its table",
    "uncalibrated": "uncalibrated: the published procedure with another estimator; compare runs, not with published tables",
}


def write(path: str | Path, results: Sequence[Result], about: dict[str, Any] | None = None) -> Path:
    """Write the report and return its path."""
    page = Page("Benchmarks", lead(results))
    for result in results:
        page.heading(f"{result.benchmark}, version {result.version}")
        page.paragraph(f"{STANDING[result.standing].capitalize()}.", "note")
        if result.scores:
            page.table(["number", "value", "unit", "better", "clips used"], [_row(s) for s in result.scores])
        for name, reason in result.skipped.items():
            page.paragraph(f"Skipped{'' if name == 'all' else f' ({name})'}: {reason}")
        for note in result.notes:
            page.paragraph(note[0].upper() + note[1:] + ".", "note")
        _clips(page, result)
    made = provenance()
    said = [f"{k}: {v}" for k, v in {**(about or {}), **made}.items()]
    page.details("Settings and versions", "\n".join(said))
    return page.write(path)


def content(results: Sequence[Result], about: dict[str, Any]) -> dict[str, Any]:
    """Return what benchmarks.json holds."""
    made = {"format": "visviva-benchmarks", "version": 1, "about": about, "made_with": provenance()}
    return made | {"results": [r.to_json() for r in results]}


def lead(results: Sequence[Result]) -> str:
    """Return the outcome in a sentence per benchmark."""
    said = []
    for result in results:
        if result.scores:
            first = result.scores[0]
            said.append(f"{result.benchmark}: {first.name} {told(first)}.")
        else:
            said.append(f"{result.benchmark}: skipped, {result.skipped.get('all', 'nothing was scored')}.")
    return " ".join(said)


def told(score: Score) -> str:
    """Return a value with its interval and share, in words."""
    span = "" if score.low is None or score.high is None else f" (95 % interval {score.low:.4g} to {score.high:.4g})"
    return f"{number(score.value)}{span}, {score.used} of {score.asked} clips"


def number(value: float) -> str:
    """Return a number in four significant digits, or ``-``."""
    return f"{value:.4g}" if math.isfinite(value) else "-"


def _row(score: Score) -> list[str | tuple[str, str]]:
    span = "" if score.low is None or score.high is None else f"{score.low:.4g} to {score.high:.4g}"
    better = "lower" if score.lower_is_better else "higher"
    return [(score.name, score.note), (number(score.value), span), score.unit, better, f"{score.used} of {score.asked}"]


def _clips(page: Page, result: Result, most: int = 50) -> None:
    broken = [r for r in result.clips if r.failure]
    if broken:
        page.table(["clip", "failed because"], [[r.key, r.failure] for r in broken[:most]])
    names = list(dict.fromkeys(name for r in result.clips for name in r.numbers))
    if names:
        rows = [[r.key, *(number(r.numbers.get(n, math.nan)) for n in names), number(r.motion)] for r in result.clips[:most]]
        page.table(["clip", *names, "motion"], rows)
