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

from visviva.eval import pictures, plots
from visviva.eval.comparison import Group, paired
from visviva.eval.comparison import compare as compare_runs
from visviva.eval.explanation import explain
from visviva.eval.newtonbench import FIVE, LOWER_IS_BETTER, NOTES, UNITS, ClipScore, Row
from visviva.eval.page import Page
from visviva.eval.recording import Recording
from visviva.eval.run import Picture, Run, provenance
from visviva.eval.score import finite
from visviva.eval.statistics import Interval

LONGEST_FILM = 600
"""Frames of a recording that its film in the report shows."""
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
            _comparison(page, groups, before.name, run.name)
        _score_table(page, rows, "Scores")
        _failures(page, run)
        _cards(page, run, shown)
    if results:
        _recordings(page, results)
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
    page = Page(title or f"{after.name} against {before.name}", lead or _lead(groups))
    page.numbers([_gain(g) for g in groups if g.primitive == "all"])
    _comparison(page, groups, before.name, after.name)
    _side_by_side(page, before, after, shown)
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
    return _evenly(known, count)


def _evenly(clips: list[ClipScore], count: int) -> list[ClipScore]:
    if len(clips) <= count:
        return clips
    return [clips[round(i * (len(clips) - 1) / max(1, count - 1))] for i in range(count)]


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
                _name(row.primitive, row.split),
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


def _name(primitive: str, split: str) -> str:
    return f"{primitive.replace('_', ' ')} {split.upper()}".strip() or "all"


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


def _title(clip: ClipScore) -> str:
    return " · ".join(part for part in (clip.primitive.replace("_", " "), clip.split.upper(), clip.key) if part)


def _cards(page: Page, run: Run, shown: int) -> None:
    clips = chosen([c for c in run.clips if c.key in run.pictures], shown)
    if clips:
        page.heading("Clips, from worst to best")
        page.paragraph("Chosen evenly by centroid distance. Films are slowed down; left the clip, right the true one.", "note")
    for clip in clips:
        picture = run.pictures[clip.key]
        page.open_card(_title(clip))
        page.paragraph(explain(clip))
        panels = [picture.frames] + ([picture.true] if picture.true is not None else [])
        page.film(
            pictures.film(panels, _slow(clip.fps)), f"clip{' | truth' if picture.true is not None else ''}. {clip.caption}"
        )
        page.figure(plots.rendered(plots.motion([(run.name, clip)]), 10.5, 2.4))
        _located(page, picture)
        _maps(page, [picture])
        page.close_card()


def _located(page: Page, picture: Picture) -> None:
    """Say what the laws that apply leave, and where the localiser sees a break."""
    if picture.laws:
        page.paragraph(f"Residuals of the laws that apply (0 is perfect): {picture.laws}.", "note")
    if "evidence" in picture.maps:
        page.figure(
            plots.rendered(plots.evidence(picture.maps["evidence"].numpy()), 10.5, 1.1),
            "Where the violation localiser sees the clip break physics, frame by frame; above the line: more than 95 % of true "
            "clips ever show. It knows free motion; a contact looks like a break to it.",
        )


def _slow(fps: float) -> float:
    """Return a playback rate at which short clips can be followed by eye [1/s]."""
    return min(fps, 10.0)


def _maps(page: Page, clips: Sequence[Picture], names: Sequence[str] = ()) -> None:
    known = [
        pictures.Maps(c.maps.get("frames", c.frames), c.maps["flow"], c.maps.get("field")) for c in clips if "flow" in c.maps
    ]
    if known:
        who = f"{' above, '.join(names)} below: " if len(known) > 1 else ""
        what = "frames, optical flow (hue: direction, saturation: speed), residual of constant acceleration (black: none)"
        page.image(pictures.sheet(pictures.map_rows(known)), who + what)


def _gain(group: Group) -> tuple[str, str]:
    gain = group.improvement
    span = "" if math.isnan(gain.low) else f"95 % interval {gain.low:+.1%} to {gain.high:+.1%}; "
    return f"{gain.value:+.1%}", f"{group.split.upper() or 'all clips'}, {span}{group.verdict}"


def _lead(groups: list[Group]) -> str:
    said = [g.sentence for g in groups if g.primitive == "all"]
    return " ".join(s[0].upper() + s[1:] for s in said)


def _comparison(page: Page, groups: list[Group], before: str, after: str) -> None:
    page.heading(f"What changed from {before} to {after}")
    for group in groups:
        page.paragraph(group.sentence[0].upper() + group.sentence[1:])
    page.paragraph(
        "Improvement is the change of a metric's mean relative to its mean before, averaged over the five metrics; positive is "
        "better. Clips are paired by scene and whole scenes are resampled; an interval that includes zero is called "
        "not significant. Where objects move markedly less than before, a better velocity, acceleration or "
        "average is not credited.",
        "note",
    )
    page.figure(plots.rendered(plots.improvements(groups), 8.5, 0.9 + 0.34 * len(groups)), "average over the five metrics")
    overall = [g for g in groups if g.primitive == "all"]
    page.figure(plots.rendered(plots.metric_changes(overall), 3.2 + 2.6 * len(overall), 2.3), "metric by metric")
    body: list[list[str | tuple[str, str]]] = []
    for group in groups:
        for metric, comparison in group.metrics.items():
            gain = comparison.improvement
            span = "" if math.isnan(gain.low) else f"{gain.low:+.1%} to {gain.high:+.1%}"
            means = [f"{x.value:.3g}" for x in (comparison.before, comparison.after)]
            name = _name(group.primitive, group.split)
            body.append([name, plots.METRIC[metric], *means, (f"{gain.value:+.1%}", span), group.verdicts[metric]])
        if group.motion is not None:
            name, means = _name(group.primitive, group.split), [f"{x:.2f}" for x in (group.motion_before, group.motion_after)]
            body.append([name, "motion (share of the true path)", *means, "-", "markedly less" if group.slowed else ""])
    page.table(["primitive", "metric", before, after, "improvement", "verdict"], body)


def _side_by_side(page: Page, before: Run, after: Run, shown: int) -> None:
    pairs = [(b, a) for b, a in paired(before, after) if b.key in before.pictures and a.key in after.pictures]
    if not pairs:
        return
    pairs.sort(key=lambda pair: pair[1].penalised["l2"].value - pair[0].penalised["l2"].value)
    partners = {a.key: b for b, a in pairs}
    page.heading("Side by side")
    page.paragraph(
        f"From most improved to most worsened, chosen evenly. Films: {before.name} | {after.name} | truth, slowed down.", "note"
    )
    for clip in _evenly([a for _, a in pairs], shown):
        partner = partners[clip.key]
        old, new = before.pictures[partner.key], after.pictures[clip.key]
        true = new.true if new.true is not None else old.true
        page.open_card(_title(clip))
        page.film(pictures.film([old.frames, new.frames, *([true] if true is not None else [])], _slow(clip.fps)), clip.caption)
        page.paragraph(f"{before.name}: {explain(partner)}")
        page.paragraph(f"{after.name}: {explain(clip)}")
        page.figure(plots.rendered(plots.motion([(before.name, partner), (after.name, clip)]), 10.5, 2.4))
        _maps(page, [old, new], [before.name, after.name])
        page.close_card()


def _recordings(page: Page, results: Sequence[Recording]) -> None:
    page.heading("Recordings without ground truth")
    rows: list[list[str | tuple[str, str]]] = []
    for result in sorted(results, key=lambda r: -(r.verdict.score if r.verdict is not None else -1)):
        outcome = ("not measured" if result.reason else "measured", "the file is damaged" if result.damage else "")
        score = "-" if result.verdict is None else f"{result.verdict.score:.2f}"
        rows.append([result.name, outcome, score, *_recording_numbers(result)])
    page.table(
        ["clip", "outcome", "score ↑", "g [m/s²], or what was measured", "acceleration [px/s²]", "fit residual", "frames used"],
        rows,
    )
    for result in results:
        _recording(page, result)


def _recording_numbers(result: Recording) -> list[str | tuple[str, str]]:
    flight, gravity = result.flight, result.gravity
    if result.pendulum is not None or result.ramp is not None:
        return _other_numbers(result)
    g: str | tuple[str, str] = "-"
    if gravity is not None:
        g = (f"{gravity.value:.2f}", f"{gravity.low:.2f} to {gravity.high:.2f}")
    if flight is None:
        return [g, "-", "-", "-"]
    (ax, ay), (sx, sy) = flight.acceleration, flight.sigma
    share = f"{len(flight.frames)} of {result.count}"
    return [
        g,
        (f"({ax:.0f}, {ay:.0f})", f"± ({sx:.0f}, {sy:.0f})"),
        (f"{flight.residual:.2f} px", f"{flight.ratio:.2%} of the path"),
        share,
    ]


def _other_numbers(result: Recording) -> list[str | tuple[str, str]]:
    if result.pendulum is not None:
        m = result.pendulum
        told = (f"{m.length:.3f} m long", f"{m.low:.3f} to {m.high:.3f}; period {m.period:.3f} s")
        return [
            told,
            "-",
            (f"{m.residual:.2f} px", f"{m.residual / m.extent:.2%} of the path"),
            f"{len(m.frames)} of {result.count}",
        ]
    if result.ramp is None:
        return ["-", "-", "-", "-"]
    r = result.ramp
    friction = ("-", "friction: no scale") if r.reason else (f"friction {r.friction:.3f}", f"{r.low:.3f} to {r.high:.3f}")
    along = (", ".join(f"{a:.0f}" for a in r.accelerations), "along the path")
    return [
        friction,
        along,
        (f"{r.residual:.2f} px", f"{r.residual / r.extent:.2%} of the path"),
        f"{len(r.frames)} of {result.count}",
    ]


def _recording(page: Page, result: Recording) -> None:
    page.open_card(result.name, "not measured" if result.reason else "measured")
    page.paragraph(result.sentence)
    if result.verdict is not None:
        page.paragraph(result.verdict.sentence)
    if result.flight is not None and result.gravity is not None:
        said = result.flight.sentence
        page.paragraph(said[0].upper() + said[1:] + ".")
    if result.picture is not None:
        frames = result.picture.frames[:LONGEST_FILM]
        page.film(pictures.film([frames], min(result.fps, max(8.0, len(frames) / 6)), 320, 28), _film_caption(result))
    _measured(page, result)
    if result.gravity is not None:
        page.figure(plots.rendered(plots.budget(result.gravity), 9.5, 2.2), f"Scale: {result.gravity.scale.source}.")
    if result.laws:
        rows: list[list[str | tuple[str, str]]] = []
        for law in result.laws:
            sigma = f"± {law.sigma:.2g}" if math.isfinite(law.sigma) else "uncertainty not known"
            rows.append([law.law.replace("_", " "), (f"{law.value:.3g}", sigma) if law.valid else ("-", law.note), law.unit])
        page.table(["law, read by Lucas-Kanade at working size", "residual ↓", "unit"], rows)
    if result.picture is not None:
        _maps(page, [result.picture])
    for note in result.notes:
        page.paragraph(note, "note")
    page.close_card()


def _measured(page: Page, result: Recording) -> None:
    """Add the pictures of what was measured: the timeline, the fit, and motion, energy and momentum over time."""
    track = result.track
    if track is None or result.picture is None:
        return
    strength, law = result.strength, result.law_over_time
    frames = result.picture.frames.permute(0, 2, 3, 1).contiguous().numpy()
    across = 9 if frames.shape[2] < frames.shape[1] else 6
    tall = 10.2 / across * frames.shape[1] / frames.shape[2] + 0.9
    page.figure(
        plots.rendered(plots.timeline(frames, strength, law, result.breaks, across), 10.5, tall, 128),
        "What the laws leave in every frame. Upper row: jump of the track's motion (full colour: 10 standard errors); lower "
        "row: residual of constant acceleration in the optical flow (full colour: its largest); lines: breaks.",
    )
    if result.flight is not None:
        page.figure(plots.rendered(plots.flight(track, result.flight, result.gravity), 10.5, 2.5))
    if result.pendulum is not None:
        page.figure(plots.rendered(plots.swing(track, result.pendulum), 10.5, 2.5))
    if result.ramp is not None:
        page.figure(plots.rendered(plots.slide(track, result.ramp), 10.5, 2.5))
    page.figure(
        plots.rendered(plots.curves(track, result.curves(), result.breaks), 10.5, 4.2),
        "Smoothed over about a tenth of a second on either side, never across a break (red lines); bands: 95 %. Energy and "
        "momentum are those in the image plane.",
    )


def _film_caption(result: Recording) -> str:
    drawn = "; red ring: the tracked object, blue: positions in the fit, grey: left out" if result.track is not None else ""
    shown = f"the first {LONGEST_FILM} of " if result.count > LONGEST_FILM else ""
    return f"{shown}{result.count} frames of {result.size[0]}x{result.size[1]} at {result.fps:.3f} frames/s{drawn}"


def _provenance(page: Page, about: dict[str, object]) -> None:
    page.heading("How this was made")
    page.details(
        "Settings and versions", json.dumps(finite({"about": about, "made_with": provenance()}), indent=1, default=str)
    )
