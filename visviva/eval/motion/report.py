"""The report of measured motions: one table, a card for each with its animated body and curves, assumptions, failures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from visviva.eval.motion.curves import CAPTION, curves
from visviva.eval.motion.measure import Measured
from visviva.eval.motion.view import animated, strip
from visviva.eval.page import Page
from visviva.eval.plots import rendered
from visviva.eval.run import provenance
from visviva.eval.score import Score, finite

COLUMNS = (
    ("support", "speed of the standing foot [m/s]"),
    ("sliding", "foot sliding [m/s]"),
    ("skating_ratio", "skating ratio"),
    ("penetrate", "penetrate [mm]"),
    ("float_grounded", "float, flight left out [mm]"),
    ("phys_err", "Phys-Err [mm]"),
    ("contact", "time in contact"),
    ("jerk", "jerk [m/s³]"),
    ("smoothness", "log dim.less jerk"),
    ("bone_change", "bone change [%]"),
    ("flight_gravity", "flight [m/s²]"),
    ("flight_spin", "turned in flight [weights]"),
    ("flight_spin_floor", "its noise floor"),
    ("el_violation", "Euler-Lagrange violation [weights]"),
    ("el_floor", "its noise floor"),
    ("el_linear", "of the centre of mass"),
    ("el_angular", "of angular momentum"),
    ("ground_peak", "peak ground reaction [weights]"),
    ("torque_peak", "peak torque [N m/kg]"),
)
MEANING = (
    "Speed of the standing foot: horizontal speed of the slowest foot joint outside of flight, which should be at rest; "
    "recorded walks have 0.03 m/s. Foot sliding: mean horizontal speed of feet lower than 5 cm above the floor, also of feet "
    "that swing that low. Skating ratio: share of frames in which a toe, low in two frames, moves faster than 0.5 m/s and so "
    "in the mean of five frames. Penetrate and float: how far the lowest joint is below or above the floor, beyond 5 mm. "
    "Phys-Err is PhysDiff's sum of penetrate, float and skate, all in metrics.json; its float counts flight as floating, so "
    "it does not add up from the column that leaves flight out. Jerk is taken by differences at the file's frame rate and "
    "grows with noise: compare motions of one rate. Log dimensionless jerk: higher is smoother, -6.6 is the smoothest reach "
    "from rest to rest; clips of fewer than 31 frames get no number. Flight: vertical acceleration of the centre of mass "
    "while no foot is near the floor; -9.81 is right. Joints stand for soles; contact and speed are no aims in themselves: a "
    "motion that stands still slides nowhere, so it gets no number. Euler-Lagrange violation: of the force and moment that "
    "the motion needs from outside, what no ground under the standing feet can give, in body weights (recorded people 0.04 to "
    "0.15; a body that nothing carries 1), on a body with average masses; its two parts are the force, which is the centre of "
    "mass's violation, and the moment, that of angular momentum. Turned in flight: how fast the angular momentum about the "
    "centre of mass changes while no foot is near the floor, over weight and radius of gyration; 0 is right. Numbers below "
    "their noise floors mean nothing."
)


def shown(score: Score | None) -> str:
    """Return a score's number for a table: three digits, or a dash."""
    return "-" if score is None or not math.isfinite(score.value) else f"{score.value:.3g}"


def errors(names: Iterable[str]) -> list[str]:
    """Return those of the scores' names that are errors against a reference."""
    return [name for name in names if "error" in name or "mpjpe" in name]


def write(
    path: str | Path,
    results: Sequence[Measured],
    names: Sequence[str],
    failures: dict[str, str],
    about: Mapping[str, object],
    cards: int = 8,
) -> Path:
    """Write report.html of measured motions and return its path; the first ``cards`` get figures."""
    page = Page("Motions measured", _lead(results, failures))
    page.numbers(
        [(str(len(results) + len(failures)), "files"), (str(len(results)), "measured"), (str(len(failures)), "failed")]
    )
    extra = errors(results[0].scores if results else {})
    columns = [*COLUMNS, *((k, f"{k.replace('_', ' ')} [{results[0].scores[k].unit}]") for k in extra)]
    page.table(
        ["", *(label for _, label in columns)],
        [[(name, _kind(m)), *(shown(m.scores.get(k)) for k, _ in columns)] for name, m in zip(names, results, strict=True)],
    )
    page.paragraph(MEANING, "note")
    if failures:
        page.heading("Not measured")
        page.table(["", "reason"], [[name, reason] for name, reason in failures.items()])
    page.heading("Motions")
    shown_ones = list(zip(names, results, strict=True))[:cards]
    for name, result in tqdm(shown_ones, desc="report", disable=not shown_ones):
        _card(page, name, result)
    if len(results) > cards:
        page.paragraph(f"{len(results) - cards} more motions are in the table and in metrics.json.", "note")
    page.heading("How this was made")
    page.details(
        "Settings and versions", json.dumps(finite({"about": about, "made_with": provenance()}), indent=1, default=str)
    )
    return page.write(path)


def _lead(results: Sequence[Measured], failures: dict[str, str]) -> str:
    measured = f"{len(results)} motion{'s' * (len(results) != 1)} measured by what can be seen in the joints alone"
    return f"{measured}{f', {len(failures)} not' if failures else ''}: feet and ground, smoothness, bones, flight, forces."


def _kind(measured: Measured) -> str:
    m = measured.motion
    return f"{len(m)} frames, {m.fps:.4g}/s, {len(m.names)} {m.kind}"


def _card(page: Page, name: str, measured: Measured) -> None:
    page.open_card(name)
    page.paragraph("; ".join(measured.motion.notes), "note")
    caption = "In real time; left blue, right amber; a green disc marks a foot in contact."
    page.parts.append(f"<figure>{animated(measured)}<figcaption>{caption}</figcaption></figure>")
    page.figure(rendered(strip(measured), 10.5, 2.4), "Poses at even times, side by side.")
    page.figure(rendered(curves(measured), 10.5, 2.4), CAPTION)
    notes = [f"{s.name}: {s.note}" for s in measured.scores.values() if not math.isfinite(s.value)]
    if notes:
        page.details("Not measured here", "\n".join(notes))
    page.close_card()
