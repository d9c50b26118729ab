"""Articulated bodies: trees of rigid links, with masses and inertias."""

from visviva.physics.bodies.body import JOINTS, Body
from visviva.physics.bodies.coupled import CoupledBody
from visviva.physics.bodies.curve import Curve, Curves, curves, lines, polynomial, spline
from visviva.physics.bodies.deleva import SEGMENTS, segment
from visviva.physics.bodies.human import human
from visviva.physics.bodies.mesh import mesh_inertia
from visviva.physics.bodies.skeletons import SKELETONS, Skeleton, standing_height

__all__ = [
    "JOINTS",
    "SEGMENTS",
    "SKELETONS",
    "Body",
    "CoupledBody",
    "Curve",
    "Curves",
    "Skeleton",
    "curves",
    "human",
    "lines",
    "mesh_inertia",
    "polynomial",
    "segment",
    "spline",
    "standing_height",
]
