"""Bodies from biorbd's models (.bioMod, versions 1 to 4), as bioptim and pyomeca use them.

A segment has its frame in its parent's (``RT``), then slides along (``translations``) and turns about (``rotations``) axes of
its own, one after another in the order of the letters: it becomes that many links, the last of which has the segment's name,
frame and mass. Coordinates, their order and their names are biorbd's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from visviva.data.bodies.biomod_text import Words
from visviva.data.bodies.inertia import possible, widened
from visviva.errors import InputError
from visviva.physics.bodies import Body, CoupledBody, curves, polynomial

WORLD = ("root", "base")
"""What a parent is called that is no segment."""
SHAPE = {"mesh": 3, "patch": 3, "meshfile": 1, "meshcolor": 3, "meshscale": 3, "meshrt": 7}
PLATES = {"forceplate": 1, "externalforceindex": 1}
SKIPPED = SHAPE | PLATES
"""Properties of segments that are not read, with how many words they take."""
ALONE = ("mesh_folder_prefix", "root_actuated", "external_forces")
"""What stands by itself, with one word, and is not read."""


@dataclass(frozen=True)
class BiomodModel:
    """A biorbd model.

    Attributes:
        coupled: the body with its coordinates, float64; names of links are those of segments, names of coordinates biorbd's
            (``thigh_RotX``). Every coordinate is one hinge or slide.
        markers: names, n of them; ``carrier``: index of the link that carries each, -1: the world; ``places``: in the frame of
            that, (n, 3) [m].
        repaired: segments whose inertia is none of a rigid body in the file (one moment and two zeros, say): their smaller
            moments were raised until they add up to the largest. biorbd takes them as they are.
        ignored: how many blocks of each kind are not part of the body: muscles, contacts, actuators, ligaments, segments with
            damping in their joints.
    """

    coupled: CoupledBody
    markers: tuple[str, ...]
    carrier: Int[Tensor, " n"]
    places: Float[Tensor, "n 3"]
    repaired: tuple[str, ...]
    ignored: dict[str, int]

    def place_markers(self, c: Float[Tensor, "*batch nc"]) -> Float[Tensor, "*batch n 3"]:
        """Return where the markers are in the world [m], for coordinates."""
        from visviva.physics.dynamics import place

        zero = torch.zeros_like(c)
        pose = place(self.coupled.body, self.coupled.expand(c, zero, zero)[0])
        at = torch.cat([pose.position, torch.zeros_like(pose.position[..., :1, :])], -2)
        turn = torch.cat([pose.rotation, torch.eye(3).to(pose.rotation).expand_as(pose.rotation[..., :1, :, :])], -3)
        return (turn[..., self.carrier, :, :] @ self.places.to(c)[..., None])[..., 0] + at[..., self.carrier, :]


@dataclass
class _Segment:
    name: str
    parent: str = WORLD[0]
    rest: NDArray = field(default_factory=lambda: np.eye(3))
    offset: NDArray = field(default_factory=lambda: np.zeros(3))
    slides: str = ""
    turns: str = ""
    mass: float = 0.0
    com: NDArray = field(default_factory=lambda: np.zeros(3))
    inertia: NDArray = field(default_factory=lambda: np.zeros((3, 3)))


def read_biomod(path: str | Path) -> BiomodModel:
    """Return the model of a .bioMod file.

    Muscles, actuators, contacts and ligaments are not read (``ignored`` counts them), nor are meshes: no other file is opened.

    Args:
        path: of the file.

    Raises:
        InputError: a file that cannot be read or is no biorbd model of version 1 to 4; words and numbers that are not
            understood, with their place; quaternions, loops and equal names; a parent that is not before its child.

    Example::

        model = read_biomod("wholebody.bioMod")
        model.place_markers(q)  # (*batch, markers, 3)
        tau = model.coupled.inverse_dynamics(q, v, a, model.coupled.wrench(q, "calcn_r", force, point, moment))
    """
    words = Words(Path(path))
    if not words or words.next().lower() != "version" or (version := words.numbers(1)[0]) not in (1, 2, 3, 4):
        raise InputError(f"{path}: no biorbd model; such a file begins with 'version' and a number from 1 to 4")
    segments: dict[str, _Segment] = {}
    markers: list[tuple[str, str, list[float]]] = []
    gravity = [0.0, 0.0, -9.81]
    while words:
        kind = words.next().lower()
        words.block = kind
        if kind == "segment":
            _add(words, segments, _segment(words, in_matrix=version < 3))
        elif kind == "marker":
            markers.append(_marker(words))
        elif kind == "gravity":
            gravity = words.numbers(3)
        elif kind == "variables":
            while (name := words.next()).lower() != "endvariables":
                words.variables[name] = words.numbers(1)[0]
        elif kind in ALONE:
            words.next()
        elif kind == "loopconstraint":
            raise InputError(f"{path}: loops (loopconstraint) are not covered; remove them, or tie the tree otherwise")
        else:
            words.skip(f"end{kind}")
            words.ignored[kind] += 1
    if not segments:
        raise InputError(f"{path}: the model has no segments")
    return _model(words, list(segments.values()), markers, gravity)


def _add(words: Words, segments: dict[str, _Segment], new: _Segment) -> None:
    if new.name in segments:
        raise InputError(f"{words.path}: two segments are called {new.name}; give each its own name")
    if new.parent not in segments and new.parent not in WORLD:
        known = ", ".join(segments) or "none"
        raise InputError(f"{words.path}: the parent of {new.name} is {new.parent!r}; before it there are: {known}")
    segments[new.name] = new


def _segment(words: Words, in_matrix: bool) -> _Segment:
    """Read a segment to its end."""
    new = _Segment(words.next())
    words.block = f"segment {new.name}"
    while (key := words.next().lower()) != "endsegment":
        if key == "parent":
            new.parent = words.next()
        elif key in ("translations", "rotations"):
            letters = _letters(words, key)
            new.slides, new.turns = (letters, new.turns) if key == "translations" else (new.slides, letters)
        elif key == "rtinmatrix":
            in_matrix = words.next().lower() not in ("0", "false")
        elif key == "rt":
            new.rest, new.offset = _frame(words, in_matrix)
        elif key == "mass":
            new.mass = words.numbers(1)[0]
        elif key in ("com", "centerofmass"):
            new.com = np.array(words.numbers(3))
        elif key in ("inertia", "inertiamatrix"):
            new.inertia = np.array(words.numbers(9)).reshape(3, 3)
        elif key == "inertia_xxyyzz":
            new.inertia = np.diag(words.numbers(3))
        elif key.startswith("ranges"):
            words.skip_numbers()
        elif key == "jointdampings":
            words.skip_numbers()
            words.ignored[key] += 1
        elif key in SKIPPED:
            for _ in range(SKIPPED[key]):
                words.next()
        else:
            raise InputError(f"{words.path}: {key!r} in {words.block} is not understood")
    return new


def _letters(words: Words, key: str) -> str:
    """Axes of a joint, one letter each."""
    letters = words.next().lower()
    if not letters or set(letters) - set("xyz") or len(letters) > 3:
        why = (
            "quaternions are not covered; write three rotations"
            if letters == "q"
            else "up to three of x, y, z are wanted, in one word"
        )
        raise InputError(f"{words.path}: {key} {letters[:20]!r} of {words.block}: {why}")
    return letters


def _frame(words: Words, in_matrix: bool) -> tuple[NDArray, NDArray]:
    """Rotation and place of a frame: a matrix of 16 numbers, or three angles, their axes, and three distances."""
    if in_matrix:
        given = np.array(words.numbers(16)).reshape(4, 4)
        rest, offset = given[:3, :3], given[:3, 3]
    else:
        angles = words.numbers(3)
        rest = roma.euler_to_rotmat(_letters(words, "angles").upper(), [torch.tensor(a).double() for a in angles]).numpy()
        offset = np.array(words.numbers(3))
    if np.abs(rest @ rest.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rest) < 0:
        raise InputError(
            f"{words.path}: the RT of {words.block} is no rotation: its axes are not at right angles, or left-handed"
        )
    return roma.special_procrustes(torch.tensor(rest)).numpy(), offset


def _marker(words: Words) -> tuple[str, str, list[float]]:
    """Read a marker to its end: name, parent, place."""
    name, parent, at = words.next(), WORLD[0], [0.0, 0.0, 0.0]
    words.block = f"marker {name}"
    while (key := words.next().lower()) != "endmarker":
        if key == "parent":
            parent = words.next()
        elif key == "position":
            at = words.numbers(3)
        elif key in ("technical", "anatomical", "axestoremove"):
            words.next()
        else:
            raise InputError(f"{words.path}: {key!r} in {words.block} is not understood")
    return name, parent, at


def _model(
    words: Words,
    segments: list[_Segment],
    markers: list[tuple[str, str, list[float]]],
    gravity: list[float],
) -> BiomodModel:
    repaired = tuple(segment.name for segment in segments if not possible(segment.inertia))
    body, names = _body(segments, gravity, repaired)
    index = {name: k for k, name in enumerate(body.names)} | {name: -1 for name in WORLD if name not in body.names}
    lost = [f"{name} ({parent})" for name, parent, _ in markers if parent not in index]
    if lost:
        raise InputError(f"{words.path}: markers on segments that the model has not: {', '.join(lost)}")
    layer = curves(range(len(names)), [polynomial(0.0, 1.0)] * len(names))
    return BiomodModel(
        coupled=CoupledBody(body, tuple(names), (layer,)),
        markers=tuple(name for name, _, _ in markers),
        carrier=torch.tensor([index[parent] for _, parent, _ in markers], dtype=torch.long),
        places=torch.tensor([at for _, _, at in markers], dtype=torch.float64).reshape(-1, 3),
        repaired=repaired,
        ignored=dict(words.ignored),
    )


def _body(segments: list[_Segment], gravity: list[float], repaired: tuple[str, ...]) -> tuple[Body, list[str]]:
    """The tree, and the names of its coordinates."""
    names: list[str] = []
    coordinates: list[str] = []
    parents, joints, axes, rest, offset = [], [], [], [], []
    last: dict[str, int] = {}
    for segment in segments:
        moves = [("slide", "Trans", x) for x in segment.slides] + [("hinge", "Rot", x) for x in segment.turns]
        for k, (joint, word, letter) in enumerate(moves or [("weld", "", "")]):
            parents.append(len(names) - 1 if k else last.get(segment.parent, -1))
            rest.append(np.eye(3) if k else segment.rest)
            offset.append(np.zeros(3) if k else segment.offset)
            joints.append(joint)
            axes.append(np.eye(3)["xyz".index(letter)] if letter else np.zeros(3))
            names.append(f"{segment.name}/{word}{letter.upper()}")
            coordinates += [f"{segment.name}_{word}{letter.upper()}"] if letter else []
        last[segment.name] = len(names) - 1
        names[-1] = segment.name
    mass, com, inertia = np.zeros(len(names)), np.zeros((len(names), 3)), np.zeros((len(names), 3, 3))
    for segment in segments:
        k = last[segment.name]
        mass[k], com[k] = segment.mass, segment.com
        inertia[k] = widened(segment.inertia) if segment.name in repaired else segment.inertia
    arrays = {"offset": offset, "rest": rest, "axis": axes, "mass": mass, "com": com, "inertia": inertia}
    tensors = {key: torch.tensor(np.array(value), dtype=torch.float64) for key, value in arrays.items()}
    down = torch.tensor(gravity, dtype=torch.float64)
    return Body(names=tuple(names), parents=tuple(parents), joints=tuple(joints), gravity=down, **tensors), coordinates
