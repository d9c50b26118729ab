"""Articulated bodies: trees of rigid links, with masses and inertias."""

from visviva.physics.bodies.body import JOINTS, Body
from visviva.physics.bodies.deleva import SEGMENTS, segment
from visviva.physics.bodies.human import human
from visviva.physics.bodies.skeletons import SKELETONS, standing_height

__all__ = ["JOINTS", "SEGMENTS", "SKELETONS", "Body", "human", "segment", "standing_height"]
