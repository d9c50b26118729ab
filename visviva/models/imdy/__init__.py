"""Learned inverse dynamics (ImDy, arXiv 2410.17610): joint torques and ground forces from any set of markers.

Example::

    from visviva.models.imdy import ImDy

    found = ImDy.load()(markers, fps=30.0)  # markers (B, T, K, 3) m, z up
    found.torque  # (B, T - 5, 21, 3) N m/kg
"""

from visviva.models.imdy.cycle import ForwardDynamics
from visviva.models.imdy.imdy import FPS, Forces, ImDy
from visviva.models.imdy.losses import Truth, losses
from visviva.models.imdy.network import InverseDynamics, Predicted
from visviva.models.imdy.windows import AHEAD, PAST, SPAN, treadmill, windows

__all__ = [
    "AHEAD",
    "FPS",
    "PAST",
    "SPAN",
    "Forces",
    "ForwardDynamics",
    "ImDy",
    "InverseDynamics",
    "Predicted",
    "Truth",
    "losses",
    "treadmill",
    "windows",
]
