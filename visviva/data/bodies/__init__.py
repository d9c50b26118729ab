"""Bodies from files: MJCF and URDF, the SMPL family, OpenSim, biorbd, and motions with rotations (BVH)."""

from visviva.data.bodies.biomod import BiomodModel, read_biomod
from visviva.data.bodies.mjcf import from_mujoco, read_mjcf, read_urdf
from visviva.data.bodies.motion import body_of, configurations
from visviva.data.bodies.osim import OsimModel, read_osim
from visviva.data.bodies.smpl import SMPLModel, read_smpl
from visviva.data.bodies.synthetic import write_test_model

__all__ = [
    "BiomodModel",
    "OsimModel",
    "SMPLModel",
    "body_of",
    "configurations",
    "from_mujoco",
    "read_biomod",
    "read_mjcf",
    "read_osim",
    "read_smpl",
    "read_urdf",
    "write_test_model",
]
