"""Laws of human motion as differentiable residuals of joints: arrays in, one number per motion out, lower is better.

Joints are HumanML3D's 22 (SMPL's first), z up [m], with the floor at a known height. `MotionVerifier` weighs laws and refuses
those that a frozen motion satisfies without an anchor.
"""

from visviva.physics.motion_laws.euler_lagrange import EulerLagrange
from visviva.physics.motion_laws.feet import Penetration, Skating
from visviva.physics.motion_laws.flight import FlightGravity
from visviva.physics.motion_laws.liveliness import Liveliness
from visviva.physics.motion_laws.verify import MotionTerm, MotionVerdict, MotionVerifier

MOTION_LAWS: dict[str, type] = {law.name: law for law in (Skating, Penetration, FlightGravity, EulerLagrange, Liveliness)}

__all__ = [
    "MOTION_LAWS",
    "EulerLagrange",
    "FlightGravity",
    "Liveliness",
    "MotionTerm",
    "MotionVerdict",
    "MotionVerifier",
    "Penetration",
    "Skating",
]
