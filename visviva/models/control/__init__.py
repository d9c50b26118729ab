"""Control of video models by forces: points that are pushed and wind, as pictures over time, and the branch that reads them."""

from visviva.models.control.branch import force_control, plain_control
from visviva.models.control.composed import Composed
from visviva.models.control.encoder import ForceEncoder
from visviva.models.control.force import Force, Point, Wind, control, parse_force, pictures, read_forces, table
from visviva.models.control.saved import add_control

__all__ = [
    "Composed",
    "Force",
    "ForceEncoder",
    "Point",
    "Wind",
    "add_control",
    "control",
    "force_control",
    "parse_force",
    "pictures",
    "plain_control",
    "read_forces",
    "table",
]
