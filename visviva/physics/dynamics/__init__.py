"""Dynamics of articulated bodies, batched, differentiable, in plain PyTorch.

Example::

    from visviva.physics.dynamics import inverse_dynamics, mass_matrix, move

    tau = inverse_dynamics(body, q, v, a)  # (*batch, nv)
"""

from visviva.physics.dynamics.derivatives import differentiate
from visviva.physics.dynamics.forward import forward_dynamics
from visviva.physics.dynamics.ground import Reaction, ground_reaction
from visviva.physics.dynamics.impulse import impulse_residual
from visviva.physics.dynamics.inverse import inverse_dynamics
from visviva.physics.dynamics.mass import bias, energy, gravity_forces, mass_matrix, momentum
from visviva.physics.dynamics.motion import Motion, Pose, integrate, move, place
from visviva.physics.dynamics.points import Points, point_jacobian, point_wrenches

__all__ = [
    "Motion",
    "Points",
    "Pose",
    "Reaction",
    "bias",
    "differentiate",
    "energy",
    "forward_dynamics",
    "gravity_forces",
    "ground_reaction",
    "impulse_residual",
    "integrate",
    "inverse_dynamics",
    "mass_matrix",
    "momentum",
    "move",
    "place",
    "point_jacobian",
    "point_wrenches",
]
