"""Errors of torques and ground forces as ImDy measures them (arXiv 2410.17610; card: motion, section 3).

Units: everything here is per kilogram (torques, N m/kg) and in body weights (forces). The published numbers are not: the data
set's torque is the *sum of two consecutive simulator torques*, its metric divides torques by 76.3869 * 60 and forces by
76.3869; `published_torque` converts. The released metric named ``L2_grf`` measures torque; here names say what is measured.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError

MASS = 76.3869
"""By which the published metrics divide [kg]."""
TORQUE = 60.0
"""By which they divide torques, besides."""
NONE = 1e-8
"""Vectors shorter than this have no direction."""
FEET = ((0, 1), (2, 3))
"""Joints of each foot (ankle and toe) among those that the ground pushes, as `visviva.eval.motion.labels` orders them."""


def mpje(found: Float[Tensor, "*batch J 3"], true: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the mean per-joint error of torques (or forces), the mean length of the differences, in their unit.

    Example::

        mpje(found.torque, true.torque)  # N m/kg
    """
    _alike(found, true)
    return (found - true).norm(dim=-1).mean()


def relative_error(found: Float[Tensor, "*batch J 3"], true: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the summed error over the summed true size: 1 for who answers zero.

    Ratios of single vectors, as published, are ruled by vectors of next to no length; here sums are divided.
    """
    _alike(found, true)
    return (found - true).norm(dim=-1).sum() / true.norm(dim=-1).sum().clamp(min=1e-12)


def size_error(found: Float[Tensor, "*batch J 3"], true: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the mean error of the magnitudes alone, in their unit."""
    _alike(found, true)
    return (found.norm(dim=-1) - true.norm(dim=-1)).abs().mean()


def angle_error(found: Float[Tensor, "*batch J 3"], true: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the mean angle between the vectors [rad]; where either has no length the angle is 0, as published.

    So a network that answers zero has no angular error: never read it alone.
    """
    _alike(found, true)
    sizes = found.norm(dim=-1), true.norm(dim=-1)
    cosine = (found * true).sum(-1) / (sizes[0] * sizes[1]).clamp(min=NONE**2)
    there = (sizes[0] > NONE) & (sizes[1] > NONE)
    return torch.where(there, cosine.clamp(-1, 1).arccos(), 0.0).mean()


def foot_error(found: Float[Tensor, "*batch 4 3"], true: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the mean error of each foot's force, its ankle's and toe's summed [body weights]."""
    _alike(found, true)
    error = found - true
    return torch.stack([error[..., list(foot), :].sum(-2).norm(dim=-1).mean() for foot in FEET]).mean()


def touching(force: Float[Tensor, "*batch G 3"], contact: Float[Tensor, "*batch G"]) -> Float[Tensor, "*batch G 3"]:
    """Return the forces with those set to 0 whose predicted probability of contact is not above a half."""
    return force * (contact > 0.5)[..., None]


def contact_f1(found: Bool[Tensor, "*batch G"], true: Bool[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the F1 score of contacts; 0 where neither has any."""
    hit = (found & true).sum()
    return 2 * hit / (found.sum() + true.sum()).clamp(min=1)


def published_torque(torque: Float[Tensor, "*batch"], mass: float) -> Float[Tensor, "*batch"]:
    """Return torques in the unit of the published metric: two of them summed, over 76.3869 * 60.

    Args:
        torque: [N m/kg].
        mass: of the body that they move [kg].

    Example::

        published_torque(torch.tensor(1.0), mass=70.0)  # 140 / 4583.2 = 0.0305
    """
    return 2 * torque * mass / (MASS * TORQUE)


def errors(
    torque: Float[Tensor, "*batch J 3"],
    true_torque: Float[Tensor, "..."],
    force: Float[Tensor, "*batch 4 3"],
    true_force: Float[Tensor, "..."],
) -> dict[str, float]:
    """Return all errors by name; forces are taken as they are (see `touching`)."""
    values = {
        "torque_mpje": mpje(torque, true_torque),
        "torque_relative": relative_error(torque, true_torque),
        "torque_size": size_error(torque, true_torque),
        "torque_angle": angle_error(torque, true_torque),
        "force_mpje": mpje(force, true_force),
        "force_relative": relative_error(force, true_force),
        "foot": foot_error(force, true_force),
        "contact_f1": contact_f1(force.norm(dim=-1) > 1e-4, true_force.norm(dim=-1) > 1e-4),
    }
    return {name: float(value) for name, value in values.items()}


def _alike(found: Tensor, true: Tensor) -> None:
    if found.shape != true.shape:
        raise InputError(
            f"vectors of the shape {tuple(found.shape)} against {tuple(true.shape)}; give the same frames and joints"
        )
