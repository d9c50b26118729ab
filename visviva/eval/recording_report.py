"""Recordings without ground truth in a report: a table of all, and a card with pictures and figures of each."""

from __future__ import annotations

import math
from collections.abc import Sequence

from visviva.eval import pictures, plots, recording_plots
from visviva.eval.cards import maps
from visviva.eval.laws import LawScore
from visviva.eval.page import Page
from visviva.eval.recording import Recording

LEVELS = (
    "The levels are those of the laws' shipped calibration: most perfect drawn clips of 64 or 128 px, 17 frames and little "
    "noise whose masks in the first frame are known stay below them. Where this clip is not like those, its row says that it "
    "is beyond its calibration: sound recordings lie above the level then, too, and the number is no verdict. The score does "
    "not use it."
)
CURVES = (
    "Smoothed over about a tenth of a second on either side, never across a break (red lines); bands: 95 %, the shutter's "
    "uncertainty included. Energy and momentum are those in the image plane."
)
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
        page.table(
            ["law, read by Lucas-Kanade at working size", "residual ↓", "perfect drawn clips", "which says", "unit"],
            [_law(law) for law in result.laws],
        )
        page.paragraph(LEVELS, "note")
    if result.picture is not None:
        maps(page, [result.picture])
    for note in result.notes:
        page.paragraph(note, "note")
    page.close_card()


def _law(law: LawScore) -> list[str | tuple[str, str]]:
    name = law.law.replace("_", " ")
    if not law.valid:
        return [name, ("-", law.note), "-", "-", law.unit]
    sigma = f"± {law.sigma:.2g} of noise alone" if math.isfinite(law.sigma) else "uncertainty not known"
    level = "-" if law.alarm is None else (f"{law.alarm.share:.0%} below", f"{law.alarm.level:.3g}")
    return [name, (f"{law.value:.3g}", sigma), level, (law.told, law.beyond) if law.beyond else law.told, law.unit]


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
    for name, (draw, wide, high) in figures(result).items():
        if name in ("flight", "pendulum", "ramp"):
            page.figure(plots.rendered(draw, wide, high))
    page.figure(plots.rendered(recording_plots.curves(track, result.curves(), result.breaks), 10.5, 4.2), CURVES)


def figures(result: Recording) -> dict[str, tuple[plots.Draw, float, float]]:
    """Return by name the figures of what was measured in a recording, each with its width and height [inches]: the ``flight``,
    ``pendulum`` or ``ramp`` with its fit, and the error budget of ``gravity``.

    Example::

        for name, (draw, width, height) in figures(result).items():
            Path(f"{name}.png").write_bytes(plots.rendered(draw, width, height)[0])
    """
    found: dict[str, tuple[plots.Draw, float, float]] = {}
    if result.track is None:
        return found
    if result.flight is not None:
        found["flight"] = (recording_plots.flight(result.track, result.flight, result.gravity), 10.5, 2.5)
    if result.pendulum is not None:
        found["pendulum"] = (recording_plots.swing(result.track, result.pendulum), 10.5, 2.5)
    if result.ramp is not None:
        found["ramp"] = (recording_plots.slide(result.track, result.ramp), 10.5, 2.5)
    if result.gravity is not None:
        found["gravity"] = (recording_plots.budget(result.gravity), 9.5, 2.2)
    return found


def _film_caption(result: Recording) -> str:
    drawn = "; red ring: the tracked object, blue: positions in the fit, grey: left out" if result.track is not None else ""
    shown = f"the first {LONGEST_FILM} of " if result.count > LONGEST_FILM else ""
    return f"{shown}{result.count} frames of {result.size[0]}x{result.size[1]} at {result.fps:.3f} frames/s{drawn}"
