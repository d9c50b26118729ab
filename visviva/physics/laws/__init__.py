"""Laws of mechanics as differentiable residuals of measured quantities; ``LAWS`` maps names to classes."""

from visviva.physics.laws.acceleration import ConstantAcceleration
from visviva.physics.laws.law import Law, Residual
from visviva.physics.laws.mass import MassConservation
from visviva.physics.laws.motion_floor import MotionFloor
from visviva.physics.laws.reference_flow import ReferenceFlow

LAWS: dict[str, type] = {law.name: law for law in (ConstantAcceleration, MassConservation, MotionFloor, ReferenceFlow)}

__all__ = ["LAWS", "ConstantAcceleration", "Law", "MassConservation", "MotionFloor", "ReferenceFlow", "Residual"]
