"""What a repair changed: each motion before and after, in one table, and a report with both bodies side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from visviva.eval.motion import errors, report
from visviva.eval.motion.curves import CAPTION, curves
from visviva.eval.motion.measure import Measured
from visviva.eval.motion.report import shown
from visviva.eval.motion.view import animated
from visviva.eval.page import Page
from visviva.eval.plots import rendered
from visviva.eval.run import provenance
from visviva.eval.score import finite

ROWS = (
    ("acceleration", "acceleration [m/s²]"),
    ("jerk", "jerk [m/s³]"),
    ("el_violation", "Euler-Lagrange violation [body weights]"),
    ("el_floor", "its noise floor [body weights]"),
    ("skate", "skate [mm/frame]"),
    ("support", "speed of the standing foot [m/s]"),
    ("sliding", "foot sliding [m/s]"),
    ("penetrate", "penetrate [mm]"),
    ("float_grounded", "float, flight left out [mm]"),
    ("bone_change", "bone change [%]"),
    ("contact", "time in contact"),
)
"""Scores shown before and after; errors against a reference follow, where there is one."""
NEEDED = 0.15
"""Violation [body weights] up to which nothing is said; recorded walks and jumps have .04 to .15 (docs/motion.md)."""
MEANING = (
    "Moved: mean distance of the joints from where they were. The violation is what no ground under the standing feet can "
    "give of the force and moment that the motion needs, measured over windows of a quarter of a second; below its noise "
    "floor it means nothing (the floor is read from jitter: after a repair it no longer sees errors that are smooth). A "
    "repair that only smooths lowers acceleration and jerk, too: look at the feet and the violation, and at how far the "
    "joints were moved. Errors are against the reference, where one was given; poses lifted from 2D are seen from the camera, "
    "on which only pa mpjpe does not depend."
)


@dataclass(frozen=True)
class Change:
    """One motion before and after, and how it was repaired."""

    before: Measured
    after: Measured
    note: str

    @property
    def moved(self) -> float:
        """Mean distance of the joints from where they were [mm]."""
        frames = min(len(self.before.motion), len(self.after.motion))
        return float(errors.mpjpe(self.after.motion.positions[:frames], self.before.motion.positions[:frames]))

    @property
    def verdict(self) -> str:
        """What is said where a motion still needs forces that no ground gives; empty where the repair lowered them."""
        one, two = (side.scores["el_violation"].value for side in (self.before, self.after))
        if not (two > NEEDED and two > 0.8 * one):
            return ""
        return (
            f"Dynamics still does not allow it: {two:.2f} of {one:.2f} body weights are left after joints moved by "
            f"{self.moved:.0f} mm. A larger --noise (method analytic) lets them move further."
        )

    def to_json(self) -> dict[str, Any]:
        """Return both sides' scores and the distance as a plain dictionary."""
        sides = {"before": self.before.to_json(), "after": self.after.to_json()}
        return {"note": self.note, "verdict": self.verdict, "moved_mm": self.moved, **sides}


def table(change: Change) -> list[list[str]]:
    """Return the rows (score, before, after, change) of a motion, the distance first."""
    rows = [["joints moved, mean [mm]", "0", f"{change.moved:.3g}", ""]]
    against = [(k, f"{k.replace('_', ' ')} [{change.before.scores[k].unit}]") for k in report.errors(change.before.scores)]
    for key, label in (*ROWS, *against):
        one, two = (side.scores.get(key) for side in (change.before, change.after))
        there = one is not None and two is not None and math.isfinite(one.value) and math.isfinite(two.value)
        share = f"{100 * (two.value / one.value - 1):+.0f} %" if there and one and two and abs(one.value) > 1e-9 else ""
        rows.append([label, shown(one), shown(two), share])
    return rows


def write(
    path: str | Path, changes: Mapping[str, Change], failures: Mapping[str, str], about: Mapping[str, object], cards: int = 8
) -> Path:
    """Write report.html of repaired motions and return its path; the first ``cards`` get figures."""
    page = Page("Motions re-estimated", f"{len(changes)} motion{'s' * (len(changes) != 1)} before and after.")
    page.paragraph(MEANING, "note")
    if failures:
        page.heading("Not re-estimated")
        page.table(["", "reason"], [[name, reason] for name, reason in failures.items()])
    for k, (name, change) in enumerate(tqdm(changes.items(), desc="report", disable=not cards)):
        page.heading(name)
        page.table(["", "before", "after", "change"], table(change))
        if change.verdict:
            page.paragraph(change.verdict)
        page.paragraph(change.note, "note")
        if k < cards:
            _card(page, change)
    page.heading("How this was made")
    page.details(
        "Settings and versions", json.dumps(finite({"about": about, "made_with": provenance()}), indent=1, default=str)
    )
    return page.write(path)


def _card(page: Page, change: Change) -> None:
    sides: Sequence[tuple[str, Measured]] = (("before", change.before), ("after", change.after))
    for said, side in sides:
        page.open_card(said)
        page.parts.append(f"<figure>{animated(side)}</figure>")
        page.figure(rendered(curves(side), 10.5, 2.4), CAPTION)
        page.paragraph("; ".join(side.motion.notes), "note")
        page.close_card()
