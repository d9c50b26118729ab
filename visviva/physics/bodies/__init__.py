"""Articulated bodies: trees of rigid links, with masses and inertias."""

from visviva.physics.bodies.body import JOINTS, Body

__all__ = ["JOINTS", "Body"]
