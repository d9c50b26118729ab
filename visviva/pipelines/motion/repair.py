"""Analytic repair of one motion: calmed, put on a body, feet found, then moved until dynamics holds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.motions.motion import HumanMotion
from visviva.eval.motion.dynamics import scatter
from visviva.models.reestimation.analytic import Estimate, Priors, reestimate
from visviva.pipelines.motion.rig import rig, standing, written

LEAST = 0.01
"""How far joints may be wrong at least [m]: files without noise may still slide and float."""
KINEMATIC = {"violation": math.inf, "slip": math.inf}
"""Priors of the first stage, which only smooths on rigid bones, so that feet can be told standing."""


@dataclass(frozen=True)
class Repaired:
    """A motion before and after.

    Attributes:
        before: in the joints that the body has; ``after``: on rigid bones, with rotations.
        noise: that was assumed [m].
        estimate: with the terms of the objective.
    """

    before: HumanMotion
    after: HumanMotion
    noise: float
    estimate: Estimate


def repaired(
    motion: HumanMotion,
    *,
    noise: float | None = None,
    spread: Float[Tensor, "T J 3"] | None = None,
    confidence: Float[Tensor, "T J"] | None = None,
    mass: float | None = None,
    floor: float | None = None,
    priors: Priors | None = None,
    steps: int = 60,
) -> Repaired:
    """Return the motion nearest to this one that obeys Euler-Lagrange on its ground.

    Args:
        motion: joints of a body, z up [m].
        noise: how far a coordinate of a joint may be wrong [m]; None: the scatter of its fourth differences, 1 cm at least.
        spread: the same for every coordinate of every joint, where they differ.
        confidence: of each joint; 0: it was not seen.
        mass: of the person [kg]; ``floor``: height [m].
        priors: what is believed of motions; ``steps``: of each of two optimizations.

    Raises:
        InputError: markers, unknown joints, no feet, fewer than 4 frames.

    Example::

        repaired(read_motion("jittery.npz"), noise=0.03).after.positions
    """
    priors = priors or Priors()
    noise = max(LEAST, scatter(motion.positions.double())) if noise is None else noise
    rigged = rig(motion, noise, priors.jerk, mass, confidence, floor)
    seen = rigged.motion.positions.double()
    wide = torch.full_like(seen, noise) if spread is None else spread.double()
    if confidence is not None:
        wide = wide / confidence.double().sqrt()[..., None]
    if rigged.motion.visible is not None:
        wide = torch.where(rigged.motion.visible[..., None], wide, torch.inf)
    fps, bones = motion.fps, 0.0 if motion.rotations is not None else priors.bone
    first = replace(priors, **KINEMATIC, bone=bones)
    calm = reestimate(rigged.body, rigged.start, seen, wide, fps, rigged.ground, first, steps)
    ground = standing(rigged.motion, calm.body, calm.q, floor)
    found = reestimate(calm.body, calm.q, seen, wide, fps, ground, replace(priors, bone=bones), steps)
    said = f"re-estimated: analytic, joints within {1e3 * noise:.3g} mm, mass {found.body.total_mass:.1f} kg"
    return Repaired(rigged.motion, written(rigged.motion, found.body, found.q, said), noise, found)


AHEAD = 3.0
"""How much wronger lifted joints are along the line of sight than across it."""


def lifted_spread(motion: HumanMotion, noise: float | None = None) -> Float[Tensor, "T J 3"]:
    """Return how far lifted joints may be wrong: the scatter of each axis, 1 cm at least, and more along the camera's (y)."""
    x = motion.positions.double()
    each = [max(LEAST, scatter(x[..., [k, k, k]])) if noise is None else noise for k in range(3)]
    each[1] = max(each[1], AHEAD * max(each[0], each[2]))
    return x.new_tensor(each).expand_as(x)
