"""Recordings without ground truth in a report: a table of all, and a card with pictures and figures of each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from visviva.eval import pictures, plots, recording_plots
from visviva.eval.cards import maps
from visviva.eval.page import Page
from visviva.eval.recording import Recording

LONGEST_FILM = 600
"""Frames of a recording that its film in the report shows."""


def section(page: Page, results: Sequence[Recording]) -> None:
    """Add the table of all recordings, and a card of each."""
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
        page.figure(plots.rendered(recording_plots.budget(result.gravity), 9.5, 2.2), f"Scale: {result.gravity.scale.source}.")
    if result.laws:
        rows: list[list[str | tuple[str, str]]] = []
        for law in result.laws:
            sigma = f"± {law.sigma:.2g}" if math.isfinite(law.sigma) else "uncertainty not known"
            rows.append([law.law.replace("_", " "), (f"{law.value:.3g}", sigma) if law.valid else ("-", law.note), law.unit])
        page.table(["law, read by Lucas-Kanade at working size", "residual ↓", "unit"], rows)
    if result.picture is not None:
        maps(page, [result.picture])
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
        plots.rendered(recording_plots.timeline(frames, strength, law, result.breaks, across), 10.5, tall, 128),
        "What the laws leave in every frame. Upper row: jump of the track's motion (full colour: 10 standard errors); lower "
        "row: residual of constant acceleration in the optical flow (full colour: its largest); lines: breaks.",
    )
    if result.flight is not None:
        page.figure(plots.rendered(recording_plots.flight(track, result.flight, result.gravity), 10.5, 2.5))
    if result.pendulum is not None:
        page.figure(plots.rendered(recording_plots.swing(track, result.pendulum), 10.5, 2.5))
    if result.ramp is not None:
        page.figure(plots.rendered(recording_plots.slide(track, result.ramp), 10.5, 2.5))
    page.figure(
        plots.rendered(recording_plots.curves(track, result.curves(), result.breaks), 10.5, 4.2),
        "Smoothed over about a tenth of a second on either side, never across a break (red lines); bands: 95 %. Energy and "
        "momentum are those in the image plane.",
    )


def _film_caption(result: Recording) -> str:
    drawn = "; red ring: the tracked object, blue: positions in the fit, grey: left out" if result.track is not None else ""
    shown = f"the first {LONGEST_FILM} of " if result.count > LONGEST_FILM else ""
    return f"{shown}{result.count} frames of {result.size[0]}x{result.size[1]} at {result.fps:.3f} frames/s{drawn}"
