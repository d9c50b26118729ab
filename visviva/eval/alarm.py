"""What perfect clips leave of a law: the level of its shipped calibration, and whether a clip is one that it speaks of.

A law's value says nothing by itself: tracking leaves something of perfect physics too. The shipped calibration
(`visviva.physics.calibration`) read each law on perfect drawn clips, measured from their pixels with known first masks; most of
them stay below its level. A clip of another size, length, rate or noise, or whose masks had to be found, is *beyond* that
calibration: sound recordings then lie above the level too, and the level is no verdict on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.eval.reading import QUIET
from visviva.physics import calibration

NEAR = 1.5
"""Factor by which size, frames, rate and noise may differ from the calibration's."""
FLOOR = 0.95
"""Quantile of perfect clips that is the noise floor, the level of laws calibrated without an alarm."""


@dataclass(frozen=True)
class Conditions:
    """What a clip is like: longest side [px], frames, frames per second, noise of a pixel in [0, 1]; whether the objects' masks
    in the first frame were known (None: the law looks at no masks)."""

    size: int
    frames: int
    fps: float
    grain: float
    masks: bool | None = None

    @classmethod
    def of(cls, frames: Float[Tensor, "T 3 H W"], fps: float, masks: bool | None = None) -> Conditions:
        """Look at a clip; noise is the robust spread of differences of frames, most of which do not move."""
        change = (frames[1:] - frames[:-1]).abs() / math.sqrt(2)
        noise = 1.4826 * float(change.flatten()[:: max(1, change.numel() // 100_000)].median()) if len(frames) > 1 else math.nan
        return cls(max(frames.shape[2:]), len(frames), fps, noise, masks)


@dataclass(frozen=True)
class Alarm:
    """``share`` of perfect drawn clips stay at or below ``level`` (in the law's unit), under these ``conditions``."""

    level: float
    share: float
    conditions: Conditions

    @classmethod
    def of(cls, law: str) -> Alarm | None:
        """Return the alarm of a law, ``name`` or ``name/form``; None if it ships no calibration in this form.

        Example::

            Alarm.of("rigid_shape").level
        """
        name, _, form = law.partition("/")
        try:
            shipped = calibration(name)
        except InputError:  # a law without a calibration has no level
            return None
        read = shipped["variants"].get(form or "default", {}).get("estimated")
        if read is None:
            return None
        known = Conditions(max(shipped["size"]), shipped["frames"], shipped["fps"], shipped["grain"], masks=True)
        alarm = read.get("alarm")
        return cls(read["floor"], FLOOR, known) if alarm is None else cls(alarm["threshold"], QUIET, known)

    def beyond(self, clip: Conditions) -> str:
        """Return in words in what a clip differs from the calibrated ones; empty if it is like them."""
        known, said = self.conditions, []
        if clip.masks is False:
            said.append("masks found without a known first one")
        for mine, theirs, unit in (
            (clip.size, known.size, "px"),
            (clip.frames, known.frames, "frames"),
            (clip.fps, known.fps, "frames/s"),
        ):
            if not 1 / NEAR <= mine / theirs <= NEAR:
                said.append(f"{mine:.4g} {unit}, not {theirs:.4g}")
        if clip.grain > NEAR * known.grain:
            said.append(f"noise {clip.grain:.3f}, not {known.grain:.3f}")
        return "; ".join(said)


def told(value: float, alarm: Alarm | None, beyond: str) -> str:
    """Return what a value says, in a few words: above or below its level, or that the level does not speak of this clip."""
    if alarm is None:
        return "not calibrated in this form"
    if beyond:
        return "beyond its calibration"
    return "above" if value > alarm.level else "not above"
