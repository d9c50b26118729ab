"""Segments and markers of biorbd's model files."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import roma
import torch
from numpy.typing import NDArray

from visviva.data.bodies.biomod_text import Words
from visviva.errors import InputError

WORLD = ("root", "base")
"""What a parent is called that is no segment."""
SKIPPED = dict(mesh=3, patch=3, meshfile=1, meshcolor=3, meshscale=3, meshrt=7, forceplate=1, externalforceindex=1)
"""Properties of segments that are not read, with how many words they take."""
RANGES = ("ranges", "rangesq", "rangesqdot", "rangesqddot", "jointdampings")
INERTIA = {"inertia": 9, "inertiamatrix": 9, "inertia_xxyyzz": 3}
TRUTH = {"0": False, "false": False, "1": True, "true": True}


@dataclass
class Segment:
    """A segment of a file: ``rest`` and ``offset`` of its frame in its parent's, axes it slides along and turns about."""

    name: str
    parent: str = WORLD[0]
    rest: NDArray = field(default_factory=lambda: np.eye(3))
    offset: NDArray = field(default_factory=lambda: np.zeros(3))
    slides: str = ""
    turns: str = ""
    mass: float = 0.0
    com: NDArray = field(default_factory=lambda: np.zeros(3))
    inertia: NDArray = field(default_factory=lambda: np.zeros((3, 3)))


@dataclass
class Marker:
    """A marker of a file: its segment, and where it is in the frame of that [m]."""

    name: str
    parent: str = WORLD[0]
    at: NDArray = field(default_factory=lambda: np.zeros(3))


def read_segment(words: Words, in_matrix: bool) -> Segment:
    """Read a segment to its end; ``in_matrix``: frames are matrices where nothing else is said."""
    new, seen = Segment(words.next()), set[str]()
    words.block = f"segment {new.name[:60]}"
    while (key := words.next().lower()) != "endsegment":
        kind = "inertia" if key in INERTIA else key
        if kind in seen and key not in SKIPPED:
            raise InputError(f"{words.path}: {words.block} has {kind} twice; one is wanted")
        seen.add(kind)
        if key == "rtinmatrix":
            in_matrix = _truth(words, after_frame="rt" in seen)
        elif key == "rt":
            new.rest, new.offset = _frame(words, in_matrix)
        elif key in INERTIA:
            new.inertia = _inertia(words, INERTIA[key])
        else:
            _property(words, new, key)
    return new


def _property(words: Words, new: Segment, key: str) -> None:
    """Read what does not depend on the rest of the segment."""
    if key == "parent":
        new.parent = words.next()
    elif key == "translations":
        new.slides = _letters(words, key)
    elif key == "rotations":
        new.turns = _letters(words, key)
    elif key == "mass":
        new.mass = words.numbers(1)[0]
    elif key in ("com", "centerofmass"):
        new.com = np.array(words.numbers(3))
    elif key in RANGES:
        words.skip_numbers()
        words.ignored.update([key] if key == "jointdampings" else [])
    elif key in SKIPPED:
        for _ in range(SKIPPED[key]):
            words.next()
    else:
        raise InputError(f"{words.path}: {key[:60]!r} in {words.block} is not understood")


def read_marker(words: Words) -> Marker:
    """Read a marker to its end; axes that the file removes are at zero, as biorbd has them."""
    new, removed = Marker(words.next()), ""
    words.block = f"marker {new.name[:60]}"
    while (key := words.next().lower()) != "endmarker":
        if key == "parent":
            new.parent = words.next()
        elif key == "position":
            new.at = np.array(words.numbers(3))
        elif key == "axestoremove":
            removed = _letters(words, key)
        elif key in ("technical", "anatomical"):
            words.next()
        else:
            raise InputError(f"{words.path}: {key[:60]!r} in {words.block} is not understood")
    new.at[["xyz".index(letter) for letter in removed]] = 0
    return new


def _truth(words: Words, after_frame: bool) -> bool:
    word = words.next().lower()
    if word not in TRUTH or after_frame:
        why = "it stands after the RT" if after_frame else "0 or 1 is wanted"
        raise InputError(f"{words.path}: RTinMatrix {word[:60]!r} of {words.block}: {why}")
    return TRUTH[word]


def _letters(words: Words, key: str, most: int = 3, least: int = 1) -> str:
    """Axes, one letter each."""
    letters = words.next().lower()
    if set(letters) - set("xyz") or not least <= len(letters) <= most:
        count = "three" if least == most else "up to three"
        why = "quaternions are not covered; write three rotations" if letters == "q" else f"{count} of x, y, z, in one word"
        raise InputError(f"{words.path}: {key} {letters[:20]!r} of {words.block}: {why}")
    return letters


def _inertia(words: Words, count: int) -> NDArray:
    """A symmetric matrix of nine numbers, or the diagonal of one."""
    given = np.array(words.numbers(count))
    found = np.diag(given) if count == 3 else given.reshape(3, 3)
    if np.abs(found - found.T).max() > 1e-4 * np.abs(found).max():
        raise InputError(f"{words.path}: the inertia of {words.block} is not symmetric; moments of inertia are")
    return (found + found.T) / 2


def _frame(words: Words, in_matrix: bool) -> tuple[NDArray, NDArray]:
    """Rotation and place of a frame: a matrix of 16 numbers, or three angles, their axes, and three distances."""
    if in_matrix:
        given = np.array(words.numbers(16)).reshape(4, 4)
        rest, offset = given[:3, :3], given[:3, 3]
    else:
        angles = [torch.tensor(angle, dtype=torch.float64) for angle in words.numbers(3)]
        rest = roma.euler_to_rotmat(_letters(words, "angles", least=3).upper(), angles).numpy()
        offset = np.array(words.numbers(3))
    if np.abs(rest).max() > 2 or np.abs(rest @ rest.T - np.eye(3)).max() > 1e-3 or np.linalg.det(rest) < 0:
        raise InputError(
            f"{words.path}: the RT of {words.block} is no rotation: its axes are not at right angles, or left-handed"
        )
    return roma.special_procrustes(torch.tensor(rest)).numpy(), offset
