"""Joints of OpenSim files: where they are, and along and about what they move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import roma
import torch
from numpy.typing import NDArray

from visviva.data.bodies.osim_text import flag, numbers
from visviva.errors import InputError
from visviva.physics.bodies import Curve, lines, polynomial, spline

Frame = tuple[NDArray, NDArray]
"""Rotation (3, 3) and place (3,) of a frame in another [m]."""


@dataclass(frozen=True)
class Axis:
    """A slide or a hinge of a joint.

    Attributes:
        name: of it in the joint.
        turns: whether it is a hinge.
        direction: unit vector.
        coordinate: what it follows; ``curve``: how.
        constant: its angle or displacement where it does not move, else None.
    """

    name: str
    turns: bool
    direction: NDArray
    coordinate: str
    curve: Curve
    constant: float | None = None

    def moved(self, by: float) -> Frame:
        """Return rotation and displacement of the axis for an angle or a distance."""
        if not self.turns:
            return np.eye(3), by * self.direction
        return roma.rotvec_to_rotmat(torch.tensor(by * self.direction)).numpy(), np.zeros(3)


@dataclass(frozen=True)
class Joint:
    """A joint between two bodies.

    Attributes:
        name, parent, child: of the joint and its bodies.
        before: the joint's frame in the parent; ``after``: in the child.
        axes: in their order, slides along the joint's first frame, then hinges.
        coordinates: their elements.
    """

    name: str
    parent: str
    child: str
    before: Frame
    after: Frame
    axes: tuple[Axis, ...]
    coordinates: tuple[Element, ...]


SIMPLE = {
    "WeldJoint": (),
    "PinJoint": (("rotation", True, 2),),
    "SliderJoint": (("translation", False, 0),),
    "UniversalJoint": (("rotation1", True, 0), ("rotation2", True, 1)),
    "GimbalJoint": (("rotation1", True, 0), ("rotation2", True, 1), ("rotation3", True, 2)),
    "BallJoint": (("rotation1", True, 0), ("rotation2", True, 1), ("rotation3", True, 2)),
    "FreeJoint": (
        *(("rotation1", True, 0), ("rotation2", True, 1), ("rotation3", True, 2)),
        *(("translation1", False, 0), ("translation2", False, 1), ("translation3", False, 2)),
    ),
    "PlanarJoint": (("rotation", True, 2), ("translation1", False, 0), ("translation2", False, 1)),
}
"""Axes of joints in the order of their coordinates: name, whether it turns, and which axis of the joint's frame it is.

Forces of a ball or free joint are those that do work on its three angles' rates; OpenSim's are moments about the parent's axes.
"""


def joints_of(path: Path, model: Element) -> list[Joint]:
    """Return the joints of a model, of version 4 (in a JointSet) or 3 (in their child bodies).

    Raises:
        InputError: a class of joint, function or frame that is not covered, by name.
    """
    found = [
        _joint(path, model, element) for element in model.findall("JointSet/objects/*") if element.find("parent_body") is None
    ]
    old = [(body, joint) for body in model.findall("BodySet/objects/Body") for joint in body.findall("Joint/*")]
    return found + [_old_joint(path, joint, str(body.get("name"))) for body, joint in old]


def _joint(path: Path, model: Element, element: Element) -> Joint:
    frames = {str(f.get("name")): f for f in model.iter("PhysicalOffsetFrame")}
    frames |= {str(f.get("name")): f for f in element.findall("frames/PhysicalOffsetFrame")}
    bodies = {"ground", *(str(body.get("name")) for body in model.findall("BodySet/objects/Body"))}
    frames = {name: frame for name, frame in frames.items() if name not in bodies}
    ends = []
    for end in ("parent", "child"):
        name = element.findtext(f"socket_{end}_frame") or element.findtext(f"socket_{end}_frame_connectee_name") or ""
        ends.append(_resolved(path, frames, name))
    coordinates = element.findall("coordinates/*")
    return _made(path, element, ends[0], ends[1], coordinates)


def _resolved(path: Path, frames: dict[str, Element], name: str) -> tuple[str, Frame]:
    """Follow offset frames to their body; return it and where the frame is in it."""
    rotation, at, seen = np.eye(3), np.zeros(3), set()
    name = name.strip().split("/")[-1]
    while name in frames:
        if name in seen:
            raise InputError(f"{path}: the frame {name} hangs on itself")
        seen.add(name)
        frame = frames[name]
        turn, shift = _frame(path, frame, "translation", "orientation")
        rotation, at = turn @ rotation, shift + turn @ at
        parent = frame.findtext("socket_parent") or frame.findtext("socket_parent_connectee_name") or ""
        name = parent.strip().split("/")[-1]
    return name, (rotation, at)


def _frame(path: Path, element: Element, place: str, turn: str) -> Frame:
    """Place and orientation (turns about x, the new y and the new z) of a frame."""
    angles = torch.tensor(numbers(path, element, turn, 3, [0.0] * 3), dtype=torch.float64)
    rotation = roma.euler_to_rotmat("XYZ", [*angles]).numpy()
    return rotation, np.array(numbers(path, element, place, 3, [0.0] * 3))


def _old_joint(path: Path, element: Element, child: str) -> Joint:
    if flag(element, "reverse"):
        raise InputError(f"{path}: the joint {element.get('name')} is reversed, which is not covered")
    before = _frame(path, element, "location_in_parent", "orientation_in_parent")
    after = _frame(path, element, "location", "orientation")
    parent = (element.findtext("parent_body") or "").strip()
    return _made(path, element, (parent, before), (child, after), element.findall("CoordinateSet/objects/*"))


def _made(
    path: Path, element: Element, parent: tuple[str, Frame], child: tuple[str, Frame], coordinates: list[Element]
) -> Joint:
    title = f"{element.tag} {element.get('name')}"
    names = [str(c.get("name")) for c in coordinates]
    if element.tag == "CustomJoint":
        axes = list(_custom(path, element, title))
    elif element.tag in SIMPLE:
        plan = SIMPLE[element.tag]
        if len(plan) != len(names):
            raise InputError(f"{path}: the joint {title} has {len(names)} coordinates; {len(plan)} are wanted")
        axes = [
            Axis(name, turns, np.eye(3)[k], coordinate, polynomial(0.0, 1.0))
            for (name, turns, k), coordinate in zip(plan, names, strict=True)
        ]
        axes.sort(key=lambda axis: axis.turns)
    else:
        known = ", ".join(["CustomJoint", *SIMPLE])
        raise InputError(f"{path}: the joint {title} is not covered; those are {known}. Write it as a CustomJoint")
    return Joint(str(element.get("name")), parent[0], child[0], parent[1], child[1], tuple(axes), tuple(coordinates))


def _custom(path: Path, element: Element, title: str) -> Iterator[Axis]:
    """Axes of a custom joint: its translations in the parent's frame, then its rotations."""
    transform = element.find("SpatialTransform")
    if transform is None:
        raise InputError(f"{path}: the joint {title} has no SpatialTransform")
    axes = {str(axis.get("name")): axis for axis in transform.findall("TransformAxis")}
    for name in ("translation1", "translation2", "translation3", "rotation1", "rotation2", "rotation3"):
        if name not in axes:
            continue
        axis = axes[name]
        direction = np.array(numbers(path, axis, "axis", 3))
        length = float(np.linalg.norm(direction))
        if not length:
            raise InputError(f"{path}: {name} of the joint {title} has an axis of no length")
        coordinates = (axis.findtext("coordinates") or "").split()
        if len(coordinates) > 1:
            raise InputError(f"{path}: {name} of {title} follows {' and '.join(coordinates)}; functions of one are covered")
        curve = _curve_of(path, axis, f"{name} of {title}", moves=bool(coordinates))
        still = not coordinates or (len(curve.origins) == 1 and not any(curve.coefficients[0][1:]))
        constant = curve.coefficients[0][0] if still else None
        yield Axis(
            name, name.startswith("rotation"), direction / length, coordinates[0] if coordinates else "", curve, constant
        )


def _curve_of(path: Path, axis: Element, title: str, moves: bool) -> Curve:
    """The function of an axis, which newer files hold in itself and older ones in <function>."""
    inside = [child for child in axis if child.tag not in ("coordinates", "axis", "function")]
    inside += [child for holder in axis.findall("function") for child in holder]
    if not inside:
        return polynomial(0.0, 1.0 if moves else 0.0)
    curve = read_curve(path, inside[0], title)
    if not moves and (len(curve.origins) > 1 or any(curve.coefficients[0][1:])):
        raise InputError(f"{path}: {title} has a function ({inside[0].tag}) but no coordinate")
    return curve


def read_curve(path: Path, element: Element, title: str) -> Curve:
    """Return a function of an OpenSim file.

    Raises:
        InputError: a class of function that is not covered, by name.
    """
    kind = element.tag
    if kind == "Constant":
        return polynomial(*numbers(path, element, "value", 1, [0.0]))
    if kind in ("LinearFunction", "PolynomialFunction"):
        found = numbers(path, element, "coefficients", 2 if kind == "LinearFunction" else None)
        return polynomial(*found[::-1]) if found else polynomial(0.0)
    if kind == "MultiplierFunction":
        inside = [child for holder in element.findall("function") for child in holder]
        if len(inside) != 1:
            raise InputError(f"{path}: a MultiplierFunction of {title} has {len(inside)} functions in it; one is wanted")
        return read_curve(path, inside[0], title).scaled(numbers(path, element, "scale", 1, [1.0])[0])
    if kind in ("SimmSpline", "NaturalCubicSpline", "PiecewiseLinearFunction"):
        points = numbers(path, element, "x", None), numbers(path, element, "y", None)
        try:
            return lines(*points) if kind == "PiecewiseLinearFunction" else spline(*points)
        except InputError as error:
            raise InputError(f"{path}: {kind} of {title}: {error}") from error
    raise InputError(
        f"{path}: {title} follows a {kind}, which is not covered; those are Constant, LinearFunction, PolynomialFunction, "
        "MultiplierFunction, SimmSpline, NaturalCubicSpline, PiecewiseLinearFunction"
    )
