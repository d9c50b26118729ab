"""Reports: one self-contained report.html of a run, of real recordings, or of two runs side by side.

What a reader finds: the outcome in a sentence, tables with 95 % intervals, and per clip why it scored as it did, the film
beside the true one, the measured path over the true parabola, velocity, error over frames, flow and residual maps. Differences
that the data cannot tell from chance are called not significant, in words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from visviva.eval import comparison_report, pictures, plots, recording_report
from visviva.eval.cards import evenly, located, maps, named, slow, title
from visviva.eval.comparison import compare as compare_runs
from visviva.eval.explanation import explain
from visviva.eval.newtonbench import FIVE, LOWER_IS_BETTER, NOTES, UNITS, ClipScore, Row
from visviva.eval.page import Page
from visviva.eval.recording import Recording
from visviva.eval.run import Run, provenance
from visviva.eval.score import finite
from visviva.eval.statistics import Interval

CONVENTION = (
    "All five numbers are penalised: a frame in which the true object is visible and the predicted one cannot be found counts "
    "as the worst a visible object could have done, so that nothing is won by vanishing. In brackets are the plain means over "
    "the frames where the object was found, as published code computes them. Velocity and acceleration RMSE are our "
    "reconstruction of metrics whose code is not published: differences of mask centroids; second differences amplify tracking "
    "noise, so compare runs, not absolute values."
)


def evaluation(
    path: str | Path,
    run: Run,
    results: Sequence[Recording] = (),
    before: Run | None = None,
    *,
    shown: int = 8,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Path:
    """Write the report of one evaluation and return its path.

    Args:
        run: clips scored against ground truth; may hold none.
        results: clips without ground truth.
        before: an earlier run of the same clips to compare with.
        shown: how many of the run's clips that have pictures get a card, evenly from worst to best.
    """
    page = Page(f"Evaluation of {run.name}", _outcome(run, results))
    if run.clips:
        rows = run.table(resamples=resamples, seed=seed, level=level)
        page.numbers(
            [
                (str(len(run.clips)), "clips asked for"),
                (str(len(run.clips) - len(run.failed)), "scored"),
                (str(len(run.failed)), "failed, counted with full penalty"),
                *[_big(row) for row in rows if (row.primitive == "all" or len(rows) == 1) and "l2" in row.penalised][:1],
            ]
        )
        if before is not None:
            groups = compare_runs(before, run, resamples=resamples, seed=seed, level=level)
            comparison_report.section(page, groups, before.name, run.name)
        _score_table(page, rows, "Scores")
        _failures(page, run)
        _cards(page, run, shown)
    if results:
        recording_report.section(page, results)
    _provenance(page, run.about)
    return page.write(path)


def compare(
    path: str | Path,
    before: Run,
    after: Run,
    *,
    title: str = "",
    lead: str = "",
    shown: int = 8,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Path:
    """Write the comparison of two runs on the same scenes and return its path.

    ``before`` and ``after`` are paired by scene (`visviva.eval.comparison.compare`); clips whose pictures both runs carry
    (`visviva.eval.run.Run.pictures`) are shown side by side: before, after, truth.

    Example::

        report.compare("out/report.html", Run("base", ...), Run("post-trained", ...))
    """
    groups = compare_runs(before, after, resamples=resamples, seed=seed, level=level)
    page = Page(title or f"{after.name} against {before.name}", lead or comparison_report.lead(groups))
    page.numbers([comparison_report.big(g) for g in groups if g.primitive == "all"])
    comparison_report.section(page, groups, before.name, after.name)
    comparison_report.side_by_side(page, before, after, shown)
    for run in (before, after):
        _score_table(page, run.table(resamples=resamples, seed=seed, level=level), f"Scores of {run.name}")
        _failures(page, run)
    _provenance(page, {"before": before.about, "after": after.about})
    return page.write(path)


def recordings(path: str | Path, results: Sequence[Recording]) -> Path:
    """Write the report of clips without ground truth, real ones for instance, and return its path."""
    return evaluation(path, Run("recordings", []), results)


def chosen(clips: Sequence[ClipScore], count: int) -> list[ClipScore]:
    """Return up to ``count`` of the clips, evenly from the worst to the best centroid distance."""
    known = sorted((c for c in clips if math.isfinite(c.penalised["l2"].value)), key=lambda c: -c.penalised["l2"].value)
    return evenly(known, count)


def _outcome(run: Run, results: Sequence[Recording]) -> str:
    said = []
    clips = [c for c in run.clips if not c.failure]
    if run.clips:
        against = f" against {run.about['reference']}" if run.about.get("reference") else ""
        lost = sum(c.lost for c in clips) / len(clips) if clips else 1.0
        scenes = len({c.scene for c in run.clips})
        said.append(f"{len(run.clips)} clips of {scenes} scenes{against}.")
        said.append(f"The object cannot be found in {lost:.1%} of the frames in which the truth shows it.")
    if results:
        measured = sum(not r.reason for r in results)
        said.append(f"{measured} of {len(results)} clips without ground truth could be measured; the others say why not.")
    return " ".join(said)


def _big(row: Row) -> tuple[str, str]:
    interval = row.penalised["l2"]
    return f"{interval.value:.2%}", f"of the image diagonal off the truth{_between(interval, '.2%')}"


def _between(interval: Interval, form: str) -> str:
    return "" if math.isnan(interval.low) else f", 95 % interval {format(interval.low, form)} to {format(interval.high, form)}"


def _score_table(page: Page, rows: list[Row], title: str) -> None:
    page.heading(title)
    arrows = {m: "↓" if LOWER_IS_BETTER[m] else "↑" for m in FIVE}
    head = ["primitive", "clips", *(f"{plots.METRIC[m]} [{_unit(m)}] {arrows[m]}" for m in FIVE), "lost", "motion"]
    body: list[list[str | tuple[str, str]]] = []
    for row in rows:
        cells = [_cell(row.penalised.get(m), row.as_coded.get(m, math.nan)) for m in FIVE]
        body.append(
            [
                named(row.primitive, row.split),
                (str(row.asked), f"{row.failed} failed"),
                *cells,
                f"{row.lost:.1%}",
                f"{row.motion:.2f}",
            ]
        )
    page.table(head, body)
    page.paragraph(CONVENTION, "note")
    page.paragraph(
        "Lost: share of frames in which the object cannot be found. Motion: length of its path over the true one; a frozen "
        "clip has 0. Intervals are 95 % bootstrap intervals over source scenes; in brackets the value as coded.",
        "note",
    )
    page.details("Definitions", "\n".join(f"{plots.METRIC[m]} [{UNITS[m]}]: {NOTES[m]}" for m in UNITS))


def _unit(metric: str) -> str:
    return {"image diagonals": "diag", "1": "share"}.get(UNITS[metric], UNITS[metric])


def _cell(interval: Interval | None, coded: float) -> tuple[str, str]:
    if interval is None:
        return ("-", "no clip could be scored")
    span = "" if math.isnan(interval.low) else f"{interval.low:.3g} to {interval.high:.3g}"
    return (f"{interval.value:.3g}", f"{span}  ({coded:.3g})" if math.isfinite(coded) else span)


def _failures(page: Page, run: Run) -> None:
    if run.failed:
        page.heading("Failed clips")
        page.table(["clip", "reason"], [[c.key, c.failure] for c in run.failed[:50]])


def _cards(page: Page, run: Run, shown: int) -> None:
    clips = chosen([c for c in run.clips if c.key in run.pictures], shown)
    if clips:
        page.heading("Clips, from worst to best")
        page.paragraph("Chosen evenly by centroid distance. Films are slowed down; left the clip, right the true one.", "note")
    for clip in clips:
        picture = run.pictures[clip.key]
        page.open_card(title(clip))
        page.paragraph(explain(clip))
        panels = [picture.frames] + ([picture.true] if picture.true is not None else [])
        page.film(
            pictures.film(panels, slow(clip.fps)), f"clip{' | truth' if picture.true is not None else ''}. {clip.caption}"
        )
        page.figure(plots.rendered(plots.motion([(run.name, clip)]), 10.5, 2.4))
        located(page, picture)
        maps(page, [picture])
        page.close_card()


def _provenance(page: Page, about: dict[str, object]) -> None:
    page.heading("How this was made")
    page.details(
        "Settings and versions", json.dumps(finite({"about": about, "made_with": provenance()}), indent=1, default=str)
    )
