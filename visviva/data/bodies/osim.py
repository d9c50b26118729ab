"""Bodies from OpenSim models (.osim, versions 3 and 4): welds, pins, sliders, gimbals, planar and custom joints, couplers.

A joint of OpenSim becomes slides and hinges, one after another, of massless links but the last; every body keeps its name and
its own frame. What moves by a function of a coordinate (a knee that slides while it bends) is a slide or hinge that follows it:
the result is a `CoupledBody`, whose forces are those of the coordinates, as OpenSim reports them.

The forces equal OpenSim 4.6's to rounding, but for one term: where several rotations of one joint follow one coordinate (knees
of Rajagopal's models), OpenSim's forces that grow with the square of its speed are not those of its own centre of mass, while
these are.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import torch
from numpy.typing import NDArray

from visviva.data.bodies.inertia import possible
from visviva.data.bodies.osim_joints import Axis, Joint, joints_of, read_curve
from visviva.data.bodies.osim_text import flag, numbers
from visviva.data.bodies.xml import read_xml
from visviva.errors import InputError
from visviva.physics.bodies import Body, CoupledBody, Curve, curves, polynomial

GROUND = "ground"


@dataclass(frozen=True)
class OsimModel:
    """An OpenSim model: its body, and what else it says of its coordinates.

    Attributes:
        name: of the model.
        coupled: the body with its coordinates, float64; links have the names and frames of OpenSim's bodies.
        defaults: default value of each coordinate [rad or m].
        ranges: lowest and highest value of each [rad or m].
        locked: coordinates that the model holds (nothing here does).
        rotational: coordinates that are angles.
        repaired: bodies whose inertia is none of a rigid body in the file, and was replaced by a ball's of the same size (as
            OpenSim does where it checks); old models of feet have such.
        ignored: how many components of each class are not part of the body: muscles and other forces, controllers.
    """

    name: str
    coupled: CoupledBody
    defaults: dict[str, float]
    ranges: dict[str, tuple[float, float]]
    locked: tuple[str, ...]
    rotational: tuple[str, ...]
    repaired: tuple[str, ...]
    ignored: dict[str, int]


def read_osim(path: str | Path, couplers: bool = True) -> OsimModel:
    """Return the model of an .osim file.

    Muscles, other forces and controllers are not read (``ignored`` counts them): inverse dynamics gives what all of them
    together must do.

    Args:
        path: of the file.
        couplers: whether coordinates that depend on others (a patella on its knee) follow them, and their forces count as the
            others'; else all are independent, as in OpenSim's inverse dynamics tool.

    Raises:
        InputError: a file that cannot be read or is no OpenSim model; joints, functions or constraints that are not covered, by
            name; bodies without a joint or with two; numbers that are missing or not finite; lengths not in metres.

    Example::

        model = read_osim("subject.osim")
        tau = model.coupled.inverse_dynamics(c, v, a, wrench)  # (*batch, number of coordinates)
    """
    path = Path(path)
    root = read_xml(path)
    model = root if root.tag == "Model" else root.find("Model")
    if model is None:
        raise InputError(f"{path}: no <Model> in it; an OpenSim model is an OpenSimDocument with one")
    units = (model.findtext("length_units") or "meters").strip()
    if units not in ("meters", "metres", "m", "meter"):
        raise InputError(f"{path}: its lengths are in {units}; write the model in meters")
    bodies = [body for body in model.findall("BodySet/objects/Body") if body.get("name") != GROUND]
    elements = {str(body.get("name")): body for body in bodies}
    if len(elements) < len(bodies):
        raise InputError(f"{path}: {len(bodies)} bodies with {len(elements)} names; give each its own")
    masses = {name: _mass(path, body) for name, body in elements.items()}
    repaired = tuple(name for name, (_, _, inertia) in masses.items() if not possible(inertia))
    for name in repaired:
        mass, centre, inertia = masses[name]
        masses[name] = mass, centre, np.linalg.norm(inertia.diagonal()) / np.sqrt(3) * np.eye(3)
    if not masses:
        raise InputError(f"{path}: the model has no bodies")
    joints = _ordered(path, joints_of(path, model), masses)
    coordinates = [c for joint in joints for c in joint.coordinates]
    names = [str(c.get("name")) for c in coordinates]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{path}: coordinates of the same name: {', '.join(twice)}")
    chain = _chain(joints, masses)
    moving = [link["axis"] for link in chain if link["axis"] is not None]
    gravity = numbers(path, model, "gravity", 3, [0.0, -9.80665, 0.0])
    return OsimModel(
        name=str(model.get("name")),
        coupled=_coupled(path, model, _body(chain, gravity), moving, names, couplers),
        defaults={str(c.get("name")): numbers(path, c, "default_value", 1, [0.0])[0] for c in coordinates},
        ranges={str(c.get("name")): _range(path, c) for c in coordinates},
        locked=tuple(str(c.get("name")) for c in coordinates if flag(c, "locked")),
        rotational=tuple(dict.fromkeys(a.coordinate for a in moving if a.turns and a.coordinate in names)),
        repaired=repaired,
        ignored=_ignored(model),
    )


def _range(path: Path, coordinate: Element) -> tuple[float, float]:
    low, high = numbers(path, coordinate, "range", 2, [-np.inf, np.inf])
    return low, high


def _mass(path: Path, body: Element) -> tuple[float, NDArray, NDArray]:
    """Mass, its centre and inertia about it, in the body's frame."""
    mass = numbers(path, body, "mass", 1, [0.0])[0]
    centre = np.array(numbers(path, body, "mass_center", 3, [0.0] * 3))
    if body.find("inertia") is not None:
        xx, yy, zz, xy, xz, yz = numbers(path, body, "inertia", 6, [0.0] * 6)
    else:
        xx, yy, zz, xy, xz, yz = (
            numbers(path, body, f"inertia_{k}", 1, [0.0])[0] for k in ("xx", "yy", "zz", "xy", "xz", "yz")
        )
    if mass < 0:
        raise InputError(f"{path}: the body {body.get('name')} has a mass of {mass} kg")
    if mass == 0:
        return mass, centre, np.zeros((3, 3))
    return mass, centre, np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def _ordered(path: Path, joints: list[Joint], masses: dict[str, Any]) -> list[Joint]:
    """Joints in the order of the tree, parents first."""
    children = Counter(joint.child for joint in joints)
    twice = [name for name, count in children.items() if count > 1]
    if twice:
        raise InputError(f"{path}: {', '.join(twice)} hang on more than one joint; loops are not covered")
    loose = [name for name in masses if name not in children]
    if loose:
        raise InputError(f"{path}: no joint holds {', '.join(loose)}; give each body one")
    unknown = [f"{j.name} ({j.parent} to {j.child})" for j in joints if {j.parent, j.child} - {GROUND} - set(masses)]
    if unknown:
        raise InputError(f"{path}: joints between bodies that the model has not: {', '.join(unknown)}")
    done, ordered, waiting = {GROUND}, [], joints
    while waiting:
        ready = [joint for joint in waiting if joint.parent in done]
        if not ready:
            raise InputError(f"{path}: the joints {', '.join(j.name for j in waiting)} do not lead to the ground")
        ordered += ready
        done |= {joint.child for joint in ready}
        waiting = [joint for joint in waiting if joint.child not in done]
    return ordered


def _chain(joints: list[Joint], masses: dict[str, tuple[float, NDArray, NDArray]]) -> list[dict[str, Any]]:
    """Links of all joints: massless ones that slide or turn, then the body, in its own frame."""
    links: list[dict[str, Any]] = []
    place = {GROUND: -1}
    for joint in joints:
        rest, offset = joint.before
        parent = place[joint.parent]
        for axis in joint.axes:
            if axis.constant is not None:
                turn, shift = axis.moved(axis.constant)
                rest, offset = rest @ turn, offset + rest @ shift
                continue
            links.append(_link(f"{joint.name}/{axis.name}", parent, rest, offset, axis))
            parent, rest, offset = len(links) - 1, np.eye(3), np.zeros(3)
        turn, shift = joint.after
        rest, offset = rest @ turn.T, offset - rest @ turn.T @ shift
        alone = not links or parent != len(links) - 1 or not joint.axes or parent == place[joint.parent]
        if alone or np.abs(rest - np.eye(3)).max() > 1e-12 or np.abs(offset).max() > 1e-12:
            links.append(_link(joint.child, parent, rest, offset, None))
        links[-1]["name"] = joint.child
        links[-1]["mass"], links[-1]["com"], links[-1]["inertia"] = masses[joint.child]
        place[joint.child] = len(links) - 1
    return links


def _link(name: str, parent: int, rest: NDArray, offset: NDArray, axis: Axis | None) -> dict[str, Any]:
    massless = {"mass": 0.0, "com": np.zeros(3), "inertia": np.zeros((3, 3))}
    return massless | {"name": name, "parent": parent, "rest": rest, "offset": offset, "axis": axis}


def _body(links: list[dict[str, Any]], gravity: list[float]) -> Body:
    def stacked(key: str) -> torch.Tensor:
        return torch.tensor(np.array([link[key] for link in links]), dtype=torch.float64)

    axes = [np.zeros(3) if link["axis"] is None else link["axis"].direction for link in links]
    kinds = ["weld" if link["axis"] is None else "hinge" if link["axis"].turns else "slide" for link in links]
    return Body(
        names=tuple(link["name"] for link in links),
        parents=tuple(link["parent"] for link in links),
        joints=tuple(kinds),
        **{key: stacked(key) for key in ("offset", "rest", "mass", "com", "inertia")},
        axis=torch.tensor(np.array(axes), dtype=torch.float64),
        gravity=torch.tensor(gravity, dtype=torch.float64),
    )


def _coupled(path: Path, model: Element, body: Body, axes: list[Axis], names: list[str], couplers: bool) -> CoupledBody:
    unknown = [axis.coordinate for axis in axes if axis.coordinate not in names]
    if unknown:
        raise InputError(f"{path}: axes of coordinates that no joint has: {', '.join(unknown)}")
    follows = _couplers(path, model, names) if couplers else {}
    free = [name for name in names if name not in follows]
    functions, sources = [], []
    for name in names:
        function, leader = follows.get(name, (polynomial(0.0, 1.0), name))
        if leader not in free:
            raise InputError(
                f"{path}: {name} depends on {leader}, which itself depends on another coordinate; give it the first one"
            )
        functions.append(function)
        sources.append(free.index(leader))
    last = curves([names.index(axis.coordinate) for axis in axes], [axis.curve for axis in axes])
    return CoupledBody(body, tuple(free), (curves(sources, functions), last))


def _couplers(path: Path, model: Element, names: list[str]) -> dict[str, tuple[Curve, str]]:
    """Function and leader of each coordinate that depends on another."""
    found: dict[str, tuple[Curve, str]] = {}
    for constraint in model.findall("ConstraintSet/objects/*"):
        title = f"{constraint.tag} {constraint.get('name')}"
        if not flag(constraint, "isEnforced", True) or flag(constraint, "isDisabled"):
            continue
        if constraint.tag != "CoordinateCouplerConstraint":
            raise InputError(f"{path}: the constraint {title} is not covered; remove it, or read with couplers=False")
        leaders = (constraint.findtext("independent_coordinate_names") or "").split()
        follower = (constraint.findtext("dependent_coordinate_name") or "").strip()
        holder = constraint.find("coupled_coordinates_function")
        if len(leaders) != 1 or {*leaders, follower} - set(names) or holder is None or len(holder) != 1:
            raise InputError(
                f"{path}: {title} couples {follower!r} to {leaders}; one coordinate that follows one other is covered"
            )
        scale = numbers(path, constraint, "scale_factor", 1, [1.0])[0]
        found[follower] = (read_curve(path, holder[0], title).scaled(scale), leaders[0])
    return found


def _ignored(model: Element) -> dict[str, int]:
    sets = ("ForceSet", "ControllerSet", "ProbeSet", "ContactGeometrySet", "ComponentSet")
    return dict(Counter(item.tag for name in sets for item in model.findall(f"{name}/objects/*")))
