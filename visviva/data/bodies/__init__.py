"""Bodies from files: MJCF and URDF, the SMPL family, OpenSim."""

from visviva.data.bodies.mjcf import from_mujoco, read_mjcf, read_urdf
from visviva.data.bodies.osim import OsimModel, read_osim
from visviva.data.bodies.smpl import SMPLModel, read_smpl
from visviva.data.bodies.synthetic import write_test_model

__all__ = [
    "OsimModel",
    "SMPLModel",
    "from_mujoco",
    "read_mjcf",
    "read_osim",
    "read_smpl",
    "read_urdf",
    "write_test_model",
]
