"""What one motion is measured by: every metric that needs no reference, with unit, direction, and what was assumed.

A motion that hardly moves (mean joint speed below 2 cm/s) gets no number for skating and smoothness, for it would win them;
where no foot is named, ground metrics are taken from the lowest point and contact has no number, with the reason. Motions of
fewer frames than `smoothness.SHORTEST` get no log dimensionless jerk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from visviva.data.motions.anatomy import feet as feet_of
from visviva.data.motions.anatomy import parts
from visviva.data.motions.motion import HumanMotion
from visviva.errors import InputError
from visviva.eval.motion import contact, dynamics, errors, ground, smoothness, spin
from visviva.eval.motion.dynamics import Forces
from visviva.eval.motion.mass import centre_of_mass
from visviva.eval.score import Score, finite

STILL = 0.02
"""Mean speed of the joints below which a motion is called still [m/s]."""
LEAST = 4
"""Frames that jerk needs."""
REST_POSE = "first frame: left out, the body jumps from it (a rest pose?)"
"""What a motion says that `without_rest_pose` has cut."""


@dataclass(frozen=True)
class Measured:
    """A motion, its scores by name, and curves for plots.

    Attributes:
        floor: height of the floor [m]; ``feet``: indices of the joints that can stand.
        scores: by name.
        curves: ``heights`` (T, F) above the floor [m], ``contacts`` (T, F), ``airborne`` (T,), ``jerk`` (T - 3,) [m/s^3],
            ``com`` (T, 3) [m], where there are any.
        forces: torques and ground reaction, or None where the joints are not those of a body.
    """

    motion: HumanMotion
    floor: float
    feet: list[int]
    scores: dict[str, Score]
    curves: dict[str, Tensor]
    forces: Forces | None = None

    def to_json(self) -> dict[str, Any]:
        """Return scores and notes as a plain dictionary."""
        m = self.motion
        about = {
            "frames": len(m),
            "fps": m.fps,
            "seconds": m.seconds,
            "joints": len(m.names),
            "kind": m.kind,
            "floor": self.floor,
        }
        return {**finite(about), "notes": list(m.notes), "scores": {k: s.to_json() for k, s in self.scores.items()}}


@torch.no_grad()
def measure(motion: HumanMotion, floor: float | None = None, mass: float | None = None) -> Measured:
    """Measure a motion by itself.

    Args:
        floor: height of the floor [m], where it is known; else the motion's own, else it is estimated and noted.
        mass: of the person [kg]; None: of de Leva's adults at this stature.

    Raises:
        InputError: fewer than 4 frames, a floor that is nowhere.

    Example::

        found = measure(read_motion("walk.bvh"))
        found.scores["sliding"].value  # m/s
    """
    if len(motion) < LEAST:
        raise InputError(f"{motion.source}: {len(motion)} frames; jerk needs {LEAST} or more")
    motion = without_rest_pose(motion)
    x, feet = motion.positions.double(), feet_of(motion.names)
    low = x[:, feet] if feet else x
    height, said = _floor(motion, low, floor)
    motion = motion.noted(*([said] if said else []))
    speed = float(smoothness.mean_size(x, motion.fps, 1))
    still = f"the motion hardly moves ({speed:.3g} m/s)" if speed < STILL else ""
    curves: dict[str, Tensor] = {"heights": low[..., 2] - height if feet else (low[..., 2] - height).amin(1, keepdim=True)}
    curves["jerk"] = smoothness.derivative(x, motion.fps, 3).norm(dim=-1).mean(-1)
    com = centre_of_mass(x, motion.names)
    curves |= {} if com is None else {"com": com}
    if feet:
        curves["contacts"] = contact.contacts(low, motion.fps)
        curves["airborne"] = contact.airborne(low, motion.fps, height)
    scores = [
        *_ground(low, height, curves, motion),
        *_feet(x, low, height, curves, motion, still),
        *_smooth(x, motion, speed, still),
    ]
    scores.append(_flight(curves, motion))
    scores += spin.scores(motion, curves.get("airborne"), mass, still)
    found, why = _forces(motion, mass)
    scores += dynamics.scores(found, why or still)
    asked = len(motion)
    counted = {s.name: replace(s, used=s.used or asked * math.isfinite(s.value), asked=asked) for s in scores}
    return Measured(motion, height, feet, counted, curves, found)


def _forces(motion: HumanMotion, mass: float | None) -> tuple[Forces | None, str]:
    """Forces, or the reason why there are none."""
    try:
        return dynamics.forces(motion, mass), ""
    except InputError as error:
        return None, str(error).removeprefix(f"{motion.source}: ")


def without_rest_pose(motion: HumanMotion) -> HumanMotion:
    """Leave out a first frame that is no part of the motion: joints jump by 5 cm and 20 times the usual step from it.

    Many BVH files begin with the pose of the skeleton's definition.
    """
    step = motion.positions.diff(dim=0).norm(dim=-1).mean(-1)
    if len(motion) <= LEAST or not bool((step[0] > 0.05) & (step[0] > 20 * step[1:].median()) & (step[0] > 3 * step[1:].max())):
        return motion
    return motion.cut(1, len(motion)).noted(REST_POSE)


def _floor(motion: HumanMotion, low: Tensor, given: float | None) -> tuple[float, str]:
    if given is not None:
        if not math.isfinite(given):  # nothing would be below it, nor above
            raise InputError(f"the floor is at {given} m; give its height, or none for an estimate")
        return given, f"floor: at {given:g} m, as given"
    if motion.floor is not None:
        return motion.floor, ""  # the reader has said so
    height = float(ground.floor_height(low))
    return (
        height,
        f"floor: unknown; taken at {height:.3f} m, where the lowest foot is 5 % of the time: floating is relative to it",
    )


def _ground(low: Tensor, floor: float, curves: dict[str, Tensor], motion: HumanMotion) -> list[Score]:
    joints = "joints, not mesh vertices"
    flying = curves.get("airborne")
    grounded = float(ground.float_height(low, floor, flying)) if flying is not None else math.nan
    why = f"without frames of flight; {joints}" if flying is not None else "no named feet to see flight by"
    summed = f"PhysDiff, reconstructed: penetrate + float + skate, flight counted as floating; {joints}"
    return [
        Score("penetrate", float(ground.penetrate(low, floor)), "mm", note=joints),
        Score("float", float(ground.float_height(low, floor)), "mm", note=f"flight counted as floating; {joints}"),
        Score("float_grounded", grounded, "mm", note=why),
        Score("phys_err", float(ground.phys_err(low, floor)), "mm", fps=motion.fps, note=summed),
    ]


def _feet(x: Tensor, low: Tensor, floor: float, curves: dict[str, Tensor], motion: HumanMotion, still: str) -> list[Score]:
    found = parts(motion.names)
    toes = [found.get(f"{side}_toe", found.get(f"{side}_ankle")) for side in ("left", "right")]
    four = [found.get(f"{side}_{part}") for side in ("left", "right") for part in ("ankle", "toe")]
    named = [k for k in toes if k is not None]
    why = still or ("" if named else "no feet are named")
    lacking = still or ("" if None not in four else "ankles and toes of both sides are not all named")

    def number(value: Tensor, reason: str) -> float:
        return math.nan if reason else float(value)

    slow, slid = ground.support_speed(low, motion.fps, curves.get("airborne")), ground.sliding(low, motion.fps, floor)
    lower = why or ("feet lower than 5 cm" if bool(slid.isfinite()) else "no foot lower than 5 cm")
    root = x[:, found.get("pelvis", 0)]
    score = [
        Score("skate", number(ground.skate(low, floor, ground.TOLERANCE), why), "mm/frame", fps=motion.fps, note=why),
        Score("support", number(slow, why), "m/s", note=why or "speed of the slowest foot joint outside of flight"),
        Score("sliding", number(slid, why), "m/s", note=lower),
    ]
    ratio = ground.skating_ratio(x[:, named] if named else low, motion.fps, floor)
    score.append(Score("skating_ratio", number(ratio, why), "share", fps=motion.fps, note=why or "published for 20 frames/s"))
    pfc = ground.pfc(root, x[:, [k for k in four if k is not None]], motion.fps) if not lacking else torch.tensor(math.nan)
    score.append(Score("pfc", float(pfc), "1e4", fps=motion.fps, note=lacking or "published for 30 frames/s"))
    standing = curves["contacts"].any(-1).double().mean() if "contacts" in curves else torch.tensor(math.nan)
    known = "time in which a foot stands; no aim in itself" if "contacts" in curves else "no feet are named"
    score.append(Score("contact", float(standing), "share", False, note=known))
    return score


def _smooth(x: Tensor, motion: HumanMotion, speed: float, still: str) -> list[Score]:
    scores = [Score("speed", speed, "m/s", False, fps=motion.fps, note=still or "no aim in itself")]
    for name, order in (("acceleration", 2), ("jerk", 3)):
        value = math.nan if still else float(smoothness.mean_size(x, motion.fps, order))
        scores.append(Score(name, value, f"m/s^{order}", fps=motion.fps, note=still or "differences at this frame rate"))
    scores.append(_smoothness(x, motion.fps, still))
    change = smoothness.bone_change(x, motion.bones) if motion.bones else torch.full((1,), math.nan)
    why = "worst bone" if motion.bones else "no bones: markers or unnamed joints"
    scores.append(Score("bone_change", float(change.max()), "%", note=why))
    return scores


def _smoothness(x: Tensor, fps: float, still: str) -> Score:
    smooth = smoothness.log_dimensionless_jerk(x, fps)
    moving = smooth[smooth.isfinite()]
    short = f"{len(x)} frames; log dimensionless jerk needs {smoothness.SHORTEST}" if len(x) < smoothness.SHORTEST else ""
    why = still or short or ("" if len(moving) else "no joint has jerk")
    value = math.nan if why else float(moving.median())
    return Score("smoothness", value, "-ln", False, note=why or "log dimensionless jerk, median over joints")


def _flight(curves: dict[str, Tensor], motion: HumanMotion) -> Score:
    if "com" not in curves or "airborne" not in curves:
        return Score("flight_gravity", math.nan, "m/s^2", note="no centre of mass or no feet: not all parts are named")
    found = contact.flight_acceleration(curves["com"][:, 2], motion.fps, curves["airborne"])
    if found is None:
        return Score("flight_gravity", math.nan, "m/s^2", False, note=contact.no_flight(motion.fps))
    return Score("flight_gravity", found, "m/s^2", False, note="acceleration of the centre of mass in flight; -9.81 is right")


def check_rates(motion: HumanMotion, true: HumanMotion) -> None:
    """Raise an `InputError` for a motion and a reference of other frame rates."""
    if abs(motion.fps / true.fps - 1) > 1e-3:
        raise InputError(
            f"{motion.source}: {motion.fps:g} frames/s against {true.fps:g} of the reference; resample one of them"
        )


@torch.no_grad()
def against(motion: HumanMotion, true: HumanMotion) -> dict[str, Score]:
    """Return the errors of a motion against its reference, over the joints that both name and the frames that both have.

    Raises:
        InputError: no common joints, or frame rates that differ.
    """
    common = [name for name in true.names if name in motion.names]
    if not common:
        raise InputError(f"{motion.source}: no joint of the reference {true.source} is in it by name")
    check_rates(motion, true)
    frames = min(len(motion), len(true))
    x, y = (m.positions[:frames, [m.names.index(name) for name in common]].double() for m in (motion, true))
    root = common.index(next((n for n in common if parts([n]).get("pelvis") == 0), common[0]))
    note = f"{len(common)} joints, {frames} of {len(true)} frames"
    values = {
        "mpjpe": (errors.mpjpe(x, y), "mm"),
        "mpjpe_root": (errors.mpjpe(x, y, root), "mm"),
        "pa_mpjpe": (errors.pa_mpjpe(x, y) if len(common) > 2 else torch.tensor(math.nan), "mm"),
        "velocity_error": (errors.velocity_error(x, y), "mm/frame"),
        "acceleration_error": (errors.acceleration_error(x, y), "mm/frame^2"),
    }
    return {k: Score(k, float(v), u, used=frames, asked=len(true), fps=motion.fps, note=note) for k, (v, u) in values.items()}
