"""What the laws say of a clip, read by one probe: residual, uncertainty, validity, and the maps for pictures.

The same laws that post-training uses, here without gradient. Three readings of constant acceleration stand side by side
(`object`: mean flow in the object's mask; `material`: flow followed along itself; `eulerian`: the fixed-pixel residual of
NewtonRewards, which is not zero for perfect physics), and the motion floor beside them, because a frozen clip satisfies all
three. Where masks of objects are known, the laws of their tracks (`visviva.physics.laws`) and the violation localiser are read
as well.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from visviva.errors import InputError
from visviva.eval.alarm import Alarm, Conditions, told
from visviva.eval.score import finite
from visviva.models.localiser.localiser import Localiser
from visviva.models.probes import LucasKanade
from visviva.physics import LAWS, ConstantAcceleration, Law, Measurement, MotionFloor

UNIT = "(px/frame)^2"


@dataclass(frozen=True)
class LawScore:
    """The residual of one law: value >= 0, lower is better; sigma NaN if unknown; not valid: the law could not be read.

    ``alarm``: the level that most perfect drawn clips stay below (`visviva.eval.alarm`), None if the law is not calibrated in
    this form; ``beyond``: in what the clip differs from those, so that the level is no verdict on it; empty: it is like them.
    """

    law: str
    value: float
    sigma: float
    valid: bool
    unit: str
    note: str = ""
    alarm: Alarm | None = None
    beyond: str = ""

    @property
    def told(self) -> str:
        """Return what the value says, in a few words."""
        return told(self.value, self.alarm, self.beyond)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return finite(asdict(self)) | {"lower_is_better": True, "told": self.told if self.valid else ""}


@dataclass(frozen=True)
class LawReading:
    """All laws of one clip, and maps: flow (T-1, 2, H, W) [px/frame], the residual field (T', H, W) of constant acceleration.

    ``evidence`` (T,): the localiser's, minus the level that 95 % of true clips never reach; None without masks.
    """

    scores: list[LawScore]
    flow: Tensor
    field: Tensor | None
    size: tuple[int, int]
    evidence: Tensor | None = None


@torch.no_grad()
def read_laws(
    frames: Float[Tensor, "T 3 H W"],
    fps: float,
    masks: Bool[Tensor, "T N H W"] | None = None,
    contact: Bool[Tensor, " T"] | None = None,
    longest: int = 192,
    first_known: bool = True,
) -> LawReading:
    """Measure a clip with the Lucas-Kanade probe at most ``longest`` pixels wide and hold it against the laws.

    ``first_known``: the masks were followed from known masks of the first frame, as those of the laws' calibration were.
    Residuals are in pixels of that working size per frame; compare clips of one size and frame rate only.
    """
    if not bool(frames.isfinite().all()):
        raise InputError("the frames hold values that are not finite (NaN or infinity); the clip cannot be measured")
    frames, masks = _reduced(frames, masks, longest)
    measured = LucasKanade()(frames[None], torch.tensor([fps]), masks[None].float() if masks is not None else None)
    if contact is not None:
        measured = measured.with_(contact=contact[None])
    forms = ["material", "eulerian"] if masks is None else ["object", "material", "eulerian"]
    laws: list[tuple[str, Law]] = [(f"constant_acceleration/{f}", ConstantAcceleration(form=f)) for f in forms]  # type: ignore[arg-type]
    scores, fields = [], {}
    for name, law in [*laws, ("motion_floor", MotionFloor(least=0.3))]:
        score, fields[name] = _score(name, law, measured)
        scores.append(score)
    if measured.flow is None:
        raise InputError("the probe measured no flow; use a flow probe")
    if masks is not None:
        scores += [_score(name, law, measured)[0] for name, law in laws_of_tracks().items()]
    scores = [_with_alarm(score, Conditions.of(frames, fps), None if masks is None else first_known) for score in scores]
    return LawReading(scores, measured.flow[0], fields[laws[0][0]], (frames.shape[3], frames.shape[2]), _evidence(measured))


def _with_alarm(score: LawScore, clip: Conditions, masks: bool | None) -> LawScore:
    alarm = Alarm.of(score.law)
    looks = score.law not in ("constant_acceleration/material", "constant_acceleration/eulerian")
    clip = replace(clip, masks=masks if looks else None)
    return replace(score, alarm=alarm, beyond="" if alarm is None else alarm.beyond(clip))


def laws_of_tracks() -> dict[str, Law]:
    """Return by name, with their defaults, the laws that need nothing but the tracks of objects."""
    made = {name: kind() for name, kind in LAWS.items()}
    return {name: law for name, law in made.items() if law.needs == {"tracks"}}


def _evidence(measured: Measurement) -> Tensor | None:
    """Return the localiser's evidence of each frame above its level, (T,); None where it cannot be read."""
    localiser = Localiser.load()
    if measured.masks is None or measured.masks.shape[1] < localiser.length or not bool(measured.masks.any()):
        return None
    return localiser(measured).evidence[0] - localiser.level


def _score(name: str, law: Law, measured: Measurement) -> tuple[LawScore, Tensor | None]:
    unit = UNIT if name == "angular_momentum" or name.startswith("constant_acceleration") else "1"
    try:
        residual = law(measured)
    except InputError as error:  # a clip too short for the law: say so, do not fail the others
        return LawScore(name, math.nan, math.nan, False, unit, str(error)), None
    valid = bool(residual.valid[0])
    value = float(residual.value[0]) if valid else math.nan
    note = "" if valid else "does not apply to this clip, or could not be measured in it"
    field = residual.field[0] if residual.field is not None else None
    return LawScore(name, value, float(residual.sigma[0]) if valid else math.nan, valid, unit, note), field


def _reduced(frames: Tensor, masks: Tensor | None, longest: int) -> tuple[Tensor, Tensor | None]:
    height, width = frames.shape[2:]
    scale = longest / max(height, width)
    if scale >= 1:
        return frames, masks
    size = (max(16, round(height * scale)), max(16, round(width * scale)))
    frames = functional.interpolate(frames, size=size, mode="area")
    return frames, None if masks is None else functional.interpolate(masks.float(), size=size, mode="area") > 0.5
