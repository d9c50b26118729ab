"""Bodies from files."""

from visviva.data.bodies.mjcf import from_mujoco, read_mjcf, read_urdf

__all__ = ["from_mujoco", "read_mjcf", "read_urdf"]
