"""Lifted poses fused with what analytic re-estimation makes of them and of the network's: each errs in its own way.

FinePhys (arXiv 2505.13437) fuses the pose of the data with one physically predicted. Here, with the smoothed lifted poses k,
the analytic re-estimation a of the lifted poses, and b of the network's, the result is ``S((k + (a + b) / 2) / 2)``, S the
smoother that made k. The weights are ours, chosen by what averages of these do on training clips and on recordings.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.motions.motion import HumanMotion
from visviva.errors import InputError
from visviva.models.reestimation.analytic import Priors
from visviva.models.reestimation.joints import NAMES
from visviva.models.reestimation.reestimator import JERK, NOISE, Reestimator
from visviva.pipelines.motion.repair import lifted_spread, repaired

SPREAD = 0.04
"""How far a lifted joint may be wrong across the line of sight, to the analytic method [m]."""


def fused(calm: Float[Tensor, "T J 3"], physical: list[Float[Tensor, "T J 3"]], model: Reestimator) -> Float[Tensor, "T J 3"]:
    """Return half the smoothed poses and half the mean of the physically predicted ones, smoothed again [m, z up]."""
    return model.calmed((calm + torch.stack(physical).mean(0).to(calm)) / 2)


def reestimated(
    motion: HumanMotion, model: Reestimator, *, mass: float | None = None, floor: float | None = None, steps: int = 60
) -> HumanMotion:
    """Return a lifted motion re-estimated; joints alone, as bones of a mean of motions have no one length.

    Args:
        motion: what `visviva.pipelines.motion.lift.lifted` returns. model: the network.
        mass: of the person [kg]. floor: height [m]. steps: of each of the analytic method's optimizations.

    Raises:
        InputError: fewer frames than the network's windows have, another frame rate than its, other joints than Human3.6M's.

    Example::

        reestimated(lifted(path, recipe, model)[0], model).positions
    """
    if motion.names != NAMES or abs(motion.fps - model.fps) > 1e-3:
        raise InputError(f"{len(motion.names)} joints at {motion.fps:g} frames/s; fusing takes Human3.6M's 17 at {model.fps:g}")
    calm, priors = model.calmed(motion.positions), Priors(jerk=JERK * (SPREAD / NOISE) ** 2)
    spread, physical = lifted_spread(motion, SPREAD), []
    for seen in (motion.positions, model(calm)):
        some = motion.noted(positions=seen)
        found = repaired(some, noise=SPREAD, spread=spread, mass=mass, floor=floor, priors=priors, steps=steps)
        physical.append(found.after.positions)
    said = "re-estimated: fused (smoothed poses, and true masses on these and on PhysNet's)"
    return motion.noted(said, positions=fused(calm, physical, model))
