"""Force adherence: does what is poked move as it was poked; for models conditioned on forces (Force Prompting, 2505.19386).

**Ours**: the paper's evaluation is a human study. With d the displacement of the poked object (its centroid, or the flow in a
disc of 15 px that is carried along), u the commanded unit direction, F the magnitude, H the image height:

- direction: mean cos(angle(d, u)) over clips with |d| > 1 % of H, and the share of them within 30 degrees;
- response: share of clips with |d| > 1 % of H (F > 0);
- magnitude: Spearman's rho between F and |d|, mean over scenes with at least five magnitudes in one direction;
- locality: |d| / (|d| + mean |displacement| of what lies outside twice the object), mean over responding clips;
- drift: |d| at F = 0 over |d| at the scene's largest F: a model in which things always move fails here;
- mass order: at equal F, share of pairs in which the object described as light moves farther than the heavy one.

A frozen clip responds in 0 % of the clips and has no direction; ``response`` is the motion amount of this benchmark.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visviva.eval.benchmarks.result import RECONSTRUCTION, ClipRow, Result, mean_score

VERSION = "2"
STANDING = RECONSTRUCTION
RESPONDS, NEAR = 0.01, math.cos(math.radians(30))


@dataclass(frozen=True)
class Trial:
    """One poked clip.

    Attributes:
        displacement: (dx, dy) of the poked object [px], y down; outside: mean displacement of the rest [px].
        direction: commanded unit vector (x, y), y down; magnitude: commanded force, any unit, 0 for none.
        height: of the image [px].
        scene: what is poked where; trials of one scene differ in force only. mass: ``light``, ``heavy`` or empty.
    """

    displacement: tuple[float, float]
    direction: tuple[float, float]
    magnitude: float
    height: float
    outside: float = math.nan
    scene: str = ""
    mass: str = ""

    @property
    def length(self) -> float:
        """|d| [px]."""
        return math.hypot(*self.displacement)

    @property
    def responds(self) -> bool:
        """Whether the object moved by more than 1 % of the image height."""
        return self.length > RESPONDS * self.height

    @property
    def cosine(self) -> float:
        """Cosine between displacement and command; NaN where nothing moved or nothing was commanded."""
        norm = self.length * math.hypot(*self.direction)
        return sum(a * b for a, b in zip(self.displacement, self.direction, strict=True)) / norm if norm > 0 else math.nan


def row_of(key: str, trial: Trial) -> ClipRow:
    """Return a trial's own numbers: response, and where it responds direction, share within 30 degrees and locality."""
    numbers: dict[str, float] = {}
    if trial.magnitude > 0:
        numbers["response"] = float(trial.responds)
        if trial.responds:
            numbers |= {"direction": trial.cosine, "within_30": float(trial.cosine > NEAR)}
            if math.isfinite(trial.outside):
                numbers["locality"] = trial.length / (trial.length + trial.outside)
    return ClipRow(key, trial.scene or key, numbers, trial.length / trial.height)


def across(trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    """Return ``magnitude``, ``drift`` and ``mass_order`` by scene, for the scenes whose trials allow them."""
    from scipy.stats import spearmanr

    scenes: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        scenes[trial.scene].append(trial)
    found: dict[str, dict[str, float]] = {"magnitude": {}, "drift": {}, "mass_order": {}}
    for name, group in scenes.items():
        rhos = []
        for same in _by(group, lambda t: (t.mass, t.direction)).values():
            forces = [t.magnitude for t in same]
            if len(set(forces)) >= 5:
                lengths = [t.length for t in same]
                moved = len(set(lengths)) > 1
                rhos.append(float(spearmanr(forces, lengths).statistic) if moved else 0.0)
        if rhos:
            found["magnitude"][name] = sum(rhos) / len(rhos)
        still, top = [t.length for t in group if t.magnitude == 0], max((t.magnitude for t in group), default=0.0)
        hardest = [t.length for t in group if t.magnitude == top > 0]
        if still and hardest:
            most = sum(hardest) / len(hardest)
            found["drift"][name] = (sum(still) / len(still)) / most if most > 0 else 1.0
        pairs = [
            float(light.length > heavy.length)
            for same in _by([t for t in group if t.mass and t.magnitude > 0], lambda t: (t.magnitude, t.direction)).values()
            for light, heavy in itertools.product(*([t for t in same if t.mass == m] for m in ("light", "heavy")))
        ]
        if pairs:
            found["mass_order"][name] = sum(pairs) / len(pairs)
    return found


def _by(trials: Sequence[Trial], key: Any) -> dict[Any, list[Trial]]:
    groups: dict[Any, list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[key(trial)].append(trial)
    return groups


def adherence(
    trials: Mapping[str, Trial], failures: Sequence[ClipRow] = (), statistics: Mapping[str, Any] | None = None
) -> Result:
    """Return the six numbers of a set of trials by clip name.

    Example::

        adherence({"a": Trial((4.0, 0.0), (1.0, 0.0), 2.0, 480.0)})["direction"].value
    """
    rows = [*(row_of(k, t) for k, t in trials.items()), *failures]
    told = {
        "direction": "mean cosine of displacement and command, responding clips",
        "within_30": "share of responding clips within 30 degrees of the command",
        "response": "share of clips whose object moves more than 1 % of the height",
        "locality": "displacement of the object over its own plus that of the rest",
    }
    scores = [
        mean_score(m, rows, "1", lower_is_better=False, note=n, statistics=statistics, within=RANGE[m]) for m, n in told.items()
    ]
    scenes = {
        "magnitude": "Spearman's rho of force and displacement",
        "drift": "displacement at no force over that at most force",
    }
    scenes |= {"mass_order": "share of pairs in which light moves farther than heavy"}
    skipped = {}
    groups = across(list(trials.values()))
    for name, note in scenes.items():
        if groups[name]:
            per = [ClipRow(s, s, {name: v}) for s, v in groups[name].items()]
            scores.append(
                mean_score(
                    name,
                    per,
                    "1",
                    lower_is_better=name == "drift",
                    note=f"{note}, scenes",
                    statistics=statistics,
                    within=RANGE[name],
                )
            )
        else:
            skipped[name] = UNMEASURED[name]
    motion = [ClipRow(r.key, r.scene, {"motion": r.motion}) for r in rows]
    scores.append(mean_score("motion", motion, "H", lower_is_better=False, note="displacement", statistics=statistics))
    return Result("force", VERSION, STANDING, scores, rows, skipped, ["formulas are ours: the paper reports a human study"])


RANGE = {"direction": (-1, 1), "magnitude": (-1, 1), "drift": (0, math.inf)} | dict.fromkeys(
    ("within_30", "response", "locality", "mass_order"), (0, 1)
)
"""Where each number can lie."""

UNMEASURED = {
    "magnitude": "no scene has five magnitudes in one direction",
    "drift": "no scene has a clip without force beside one with",
    "mass_order": "no scene has a light and a heavy object (field 'mass') poked alike",
}
