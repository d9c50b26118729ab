"""Bodies from biorbd's models (.bioMod, versions 1 to 4), as bioptim and pyomeca use them.

A segment has its frame in its parent's (``RT``), then slides along (``translations``) and turns about (``rotations``) axes of
its own, one after another in the order of the letters: it becomes that many links, the last of which has the segment's name,
frame and mass. Coordinates, their order and their names are biorbd's. Frames are made rotations: files write six digits of
them. Expressions follow the usual order of operations (biorbd's minus sign does not).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from visviva.data.bodies.biomod_blocks import WORLD, Marker, Segment, read_marker, read_segment
from visviva.data.bodies.biomod_text import Words
from visviva.data.bodies.inertia import possible, widened
from visviva.errors import InputError
from visviva.physics.bodies import Body, CoupledBody, curves, polynomial

ALONE = ("mesh_folder_prefix", "root_actuated", "external_forces")
"""What stands by itself, with one word, and is not read."""
FRAMES = ("imu", "mimu", "customrt")
"""Blocks that end with the end of any of them."""


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

    def to(self, *where: torch.device | torch.dtype | str) -> BiomodModel:
        """Return body and markers on a device, or in a dtype."""
        coupled = self.coupled.to(*where)
        like = coupled.body.mass
        return replace(self, coupled=coupled, carrier=self.carrier.to(like.device), places=self.places.to(like))

    def place_markers(self, c: Float[Tensor, "*batch nc"]) -> Float[Tensor, "*batch n 3"]:
        """Return where the markers are in the world [m], for coordinates of the model's dtype."""
        from visviva.physics.dynamics import place

        zero = torch.zeros_like(c)
        pose = place(self.coupled.body, self.coupled.expand(c, zero, zero)[0])
        at = torch.cat([pose.position, torch.zeros_like(pose.position[..., :1, :])], -2)
        turn = torch.cat([pose.rotation, torch.eye(3).to(pose.rotation).expand_as(pose.rotation[..., :1, :, :])], -3)
        return (turn[..., self.carrier, :, :] @ self.places[..., None])[..., 0] + at[..., self.carrier, :]


def read_biomod(path: str | Path) -> BiomodModel:
    """Return the model of a .bioMod file.

    Muscles, actuators, contacts and ligaments are not read (``ignored`` counts them), nor are meshes: no other file is opened.

    Args:
        path: of the file.

    Raises:
        InputError: a file that cannot be read or is no biorbd model of version 1 to 4; words and numbers that are not
            understood, with their place; quaternions, loops and equal names; a parent that is not before its child; masses and
            inertias that no body has.

    Example::

        model = read_biomod("wholebody.bioMod")
        model.place_markers(q)  # (*batch, markers, 3)
        tau = model.coupled.inverse_dynamics(q, v, a, model.coupled.wrench(q, "calcn_r", force, point, moment))
    """
    words = Words(Path(path))
    if not words or words.next().lower() != "version" or (version := words.numbers(1)[0]) not in (1, 2, 3, 4):
        raise InputError(f"{path}: no biorbd model; such a file begins with 'version' and a number from 1 to 4")
    segments: dict[str, Segment] = {}
    markers: list[Marker] = []
    gravity = [0.0, 0.0, -9.81]
    while words:
        kind = words.next().lower()
        words.block = kind[:60]
        if kind == "segment":
            _add(words, segments, read_segment(words, in_matrix=version < 3))
        elif kind == "marker":
            markers.append(read_marker(words))
        elif kind == "gravity":
            gravity = words.numbers(3)
        else:
            _other(words, kind)
    if not segments:
        raise InputError(f"{path}: the model has no segments")
    return _model(words, list(segments.values()), markers, gravity)


def _other(words: Words, kind: str) -> None:
    """Read variables; count and skip what is no part of a body."""
    if kind == "variables":
        while (name := words.next()).lower() != "endvariables":
            if name in words.variables or not name.startswith("$"):
                raise InputError(f"{words.path}: variable {name[:60]!r}; names begin with a $, each stands once")
            words.variables[name] = words.numbers(1)[0]
    elif kind == "loopconstraint":
        raise InputError(f"{words.path}: loops (loopconstraint) are not covered; remove them, or tie the tree otherwise")
    elif kind in ALONE:
        words.next()
    else:
        words.skip([f"end{other}" for other in FRAMES] if kind in FRAMES else [f"end{kind[:60]}"])
        words.ignored[kind] += 1


def _add(words: Words, segments: dict[str, Segment], new: Segment) -> None:
    if new.name in segments:
        raise InputError(f"{words.path}: two segments are called {new.name[:60]}; give each its own name")
    if new.parent not in segments and new.parent.lower() not in WORLD:
        known = ", ".join(list(segments)[-20:]) or "none"
        raise InputError(f"{words.path}: the parent of {new.name} is {new.parent[:60]!r}; before it there are: {known}")
    segments[new.name] = new


def _model(words: Words, segments: list[Segment], markers: list[Marker], gravity: list[float]) -> BiomodModel:
    repaired = tuple(segment.name for segment in segments if not possible(segment.inertia))
    try:
        body, names = _body(segments, gravity, repaired)
    except InputError as error:
        raise InputError(f"{words.path}: {error}") from None
    index = {name: k for k, name in enumerate(body.names)}
    lost = [f"{m.name} ({m.parent})" for m in markers if m.parent not in index and m.parent.lower() not in WORLD]
    if lost:
        raise InputError(f"{words.path}: markers on segments that the model has not: {', '.join(lost[:20])}")
    layer = curves(range(len(names)), [polynomial(0.0, 1.0)] * len(names))
    return BiomodModel(
        coupled=CoupledBody(body, tuple(names), (layer,)),
        markers=tuple(marker.name for marker in markers),
        carrier=torch.tensor([index.get(marker.parent, -1) for marker in markers], dtype=torch.long),
        places=torch.tensor(np.array([marker.at for marker in markers]), dtype=torch.float64).reshape(-1, 3),
        repaired=repaired,
        ignored=dict(words.ignored),
    )


def _body(segments: list[Segment], gravity: list[float], repaired: tuple[str, ...]) -> tuple[Body, list[str]]:
    """The tree, and the names of its coordinates."""
    names: list[str] = []
    coordinates: list[str] = []
    parents, joints, axes = [], [], []
    last: dict[str, int] = {}
    for segment in segments:
        moves = [("slide", "Trans", x) for x in segment.slides] + [("hinge", "Rot", x) for x in segment.turns]
        for k, (joint, word, letter) in enumerate(moves or [("weld", "", "")]):
            parents.append(len(names) - 1 if k else last.get(segment.parent, -1))
            joints.append(joint)
            axes.append(np.eye(3)["xyz".index(letter)] if letter else np.zeros(3))
            names.append(f"{segment.name}/{k}")
            coordinates += [f"{segment.name}_{word}{letter.upper()}"] if letter else []
        last[segment.name] = len(names) - 1
        names[-1] = segment.name
    if len(set(names)) < len(names):
        raise InputError("segments called as the links of another (its name, a slash and a number); rename them")
    arrays = _arrays(segments, last, len(names), repaired) | {"axis": np.array(axes), "gravity": np.array(gravity)}
    tensors = {key: torch.tensor(value, dtype=torch.float64) for key, value in arrays.items()}
    return Body(names=tuple(names), parents=tuple(parents), joints=tuple(joints), **tensors), coordinates


def _arrays(segments: list[Segment], last: dict[str, int], count: int, repaired: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Frames on a segment's first link, masses on its last."""
    found = {"mass": np.zeros(count), "com": np.zeros((count, 3)), "inertia": np.zeros((count, 3, 3))}
    found |= {"rest": np.tile(np.eye(3), (count, 1, 1)), "offset": np.zeros((count, 3))}
    for segment in segments:
        k = last[segment.name]
        first = k + 1 - max(1, len(segment.slides + segment.turns))
        found["rest"][first], found["offset"][first] = segment.rest, segment.offset
        found["mass"][k], found["com"][k] = segment.mass, segment.com
        found["inertia"][k] = widened(segment.inertia) if segment.name in repaired else segment.inertia
    return found
