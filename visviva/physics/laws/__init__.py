"""Laws of mechanics as differentiable residuals of measured quantities; ``LAWS`` maps names to classes."""

from visviva.physics.laws.acceleration import ConstantAcceleration
from visviva.physics.laws.angular_momentum import AngularMomentum
from visviva.physics.laws.free_fall import FreeFall
from visviva.physics.laws.law import Law, Residual
from visviva.physics.laws.mass import MassConservation
from visviva.physics.laws.motion_floor import MotionFloor
from visviva.physics.laws.permanence import Permanence
from visviva.physics.laws.reference_flow import ReferenceFlow
from visviva.physics.laws.rigid_shape import RigidShape
from visviva.physics.laws.surprise import Surprise

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
    )
}

__all__ = [
    "LAWS",
    "AngularMomentum",
    "ConstantAcceleration",
    "FreeFall",
    "Law",
    "MassConservation",
    "MotionFloor",
    "Permanence",
    "ReferenceFlow",
    "Residual",
    "RigidShape",
    "Surprise",
]
