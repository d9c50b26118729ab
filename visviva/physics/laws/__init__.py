"""Laws of mechanics as differentiable residuals of measured quantities; ``LAWS`` maps names to classes."""

from visviva.physics.laws.acceleration import ConstantAcceleration
from visviva.physics.laws.angular_momentum import AngularMomentum
from visviva.physics.laws.energy import Energy
from visviva.physics.laws.force import ForceResponse
from visviva.physics.laws.free_fall import FreeFall
from visviva.physics.laws.friction import Friction
from visviva.physics.laws.gravity_direction import GravityDirection
from visviva.physics.laws.law import Law, Residual
from visviva.physics.laws.mass import MassConservation
from visviva.physics.laws.momentum import Momentum
from visviva.physics.laws.motion_floor import MotionFloor
from visviva.physics.laws.pendulum import Pendulum
from visviva.physics.laws.permanence import Permanence
from visviva.physics.laws.reference_flow import ReferenceFlow
from visviva.physics.laws.rigid_shape import RigidShape
from visviva.physics.laws.surprise import Surprise
from visviva.physics.laws.trajectory_offset import TrajectoryOffset

LAWS: dict[str, type] = {
    law.name: law
    for law in (
        ConstantAcceleration,
        MassConservation,
        MotionFloor,
        ReferenceFlow,
        AngularMomentum,
        RigidShape,
        Permanence,
        Surprise,
        FreeFall,
        Energy,
        Pendulum,
        Friction,
        Momentum,
        GravityDirection,
        TrajectoryOffset,
        ForceResponse,
    )
}

__all__ = [
    "LAWS",
    "AngularMomentum",
    "ConstantAcceleration",
    "Energy",
    "ForceResponse",
    "FreeFall",
    "Friction",
    "GravityDirection",
    "Law",
    "MassConservation",
    "Momentum",
    "MotionFloor",
    "Pendulum",
    "Permanence",
    "ReferenceFlow",
    "Residual",
    "RigidShape",
    "Surprise",
    "TrajectoryOffset",
]
