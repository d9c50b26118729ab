"""BVH files (Biovision hierarchy): read in all their dialects, and written.

Channels may come in any order, positions on any joint, End Sites with or without a name; tabs, spaces and line ends do not
matter; the unit and the up axis, which the format does not state, are found. Position channels of a joint are its place in the
parent's frame in some files (MotionBuilder, Blender) and are added to its OFFSET in others (Biovision): a file is read in the
way that keeps its mean bones nearest to its offsets, and what was done is noted.

    R = product of the rotations about the channels' axes, in the order of the file, column vectors; x_child = x + R offset
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from visviva.data.files import whole
from visviva.data.motions.axes import Reading, overruled
from visviva.data.motions.motion import HumanMotion, forward_kinematics
from visviva.data.motions.text import numbers, text_of
from visviva.data.motions.world import to_world
from visviva.errors import InputError

CHANNEL = re.compile(r"([XYZ])(position|rotation)", re.IGNORECASE)
DEEPEST = 500


@dataclass
class Tree:
    """The HIERARCHY section."""

    names: list[str] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    offsets: list[list[float]] = field(default_factory=list)
    channels: list[list[str]] = field(default_factory=list)


def read_bvh(path: str | Path, reading: Reading | None = None) -> HumanMotion:
    """Read a BVH file as joints (End Sites included) with local rotations.

    Args:
        path: the file.
        reading: units, up axis, handedness and frame rate where they are known better than found.

    Raises:
        InputError: no BVH file, several roots, a tree that does not close, frames missing or of the wrong length, no frame
            time (give ``reading.fps``), numbers that are not finite, mixed units, left-handed axes.

    Example::

        motion = read_bvh("walk.bvh")
        print(*motion.notes, sep="; ")
    """
    reading, where = reading or Reading(), str(path)
    text = text_of(path)
    head, found, tail = (*re.split(r"(?im)^\s*(MOTION)\b", text, maxsplit=1), "", "")[:3]
    if not found:
        raise InputError(f"{where}: no MOTION section; the file is cut short or no BVH file")
    tree = _tree(head.split(), where)
    values, fps, told = _frames(tail, sum(map(len, tree.channels)), reading, where)
    rotations, offsets, notes = _local(tree, torch.from_numpy(values), torch.tensor(tree.offsets, dtype=torch.float64))
    positions, _ = forward_kinematics(rotations, offsets, tree.parents)
    rest = offsets.mean(0)
    rest[0] = torch.tensor(tree.offsets[0], dtype=torch.float64)
    motion = to_world(
        positions, tree.names, tree.parents, fps, where, reading=reading, rotations=rotations, rest=rest, notes=told + notes
    )
    return motion.noted(positions=motion.positions.float(), rotations=rotations_of(motion), rest=motion.rest.float())  # type: ignore[union-attr]


def rotations_of(motion: HumanMotion) -> Float[Tensor, "T J 3 3"]:
    """Return the local rotations in single precision, or raise where a motion has none."""
    if motion.rotations is None:
        raise InputError(f"{motion.source or 'the motion'}: has positions only, no rotations")
    return motion.rotations.float()


def _tree(words: list[str], where: str) -> Tree:
    tree, stack, current, k = Tree(), [-1], -1, 0
    upper = [word.upper() for word in words]
    if not words or upper[0] != "HIERARCHY":
        raise InputError(f"{where}: does not begin with HIERARCHY; this is no BVH file")
    try:
        while (k := k + 1) < len(words):
            word = upper[k]
            if word in ("ROOT", "JOINT", "END"):
                if word == "ROOT" and tree.names:
                    raise InputError(f"{where}: several roots ({words[k + 1]!r} too); one person per file: split it")
                opening = words.index("{", k)
                name = " ".join(words[k + 1 : opening])
                name = f"{tree.names[stack[-1]]}_end" if word == "END" else name or f"joint{len(tree.names)}"
                tree.names.append(name if name not in tree.names else f"{name}_{len(tree.names)}")
                tree.parents.append(stack[-1])
                tree.offsets.append([0.0, 0.0, 0.0])
                tree.channels.append([])
                current, k = len(tree.names) - 1, opening
                stack.append(current)
            elif word == "}":
                stack.pop()
                current = stack[-1]
            elif word == "OFFSET":
                tree.offsets[current] = [float(x) for x in words[k + 1 : k + 4]]
                k += 3
            elif word == "CHANNELS":
                count = int(words[k + 1])
                tree.channels[current] = words[k + 2 : k + 2 + count]
                k += 1 + count
            else:
                raise InputError(f"{where}: {words[k][:40]!r} is not understood in the hierarchy; the file is damaged")
            if len(tree.names) > DEEPEST:
                raise InputError(f"{where}: more than {DEEPEST} joints; this is not one person")
    except (ValueError, IndexError) as error:
        raise InputError(f"{where}: the hierarchy is damaged or cut short ({error}); export the file again") from error
    _check(tree, stack, where)
    return tree


def _check(tree: Tree, stack: list[int], where: str) -> None:
    if stack != [-1] or not tree.names:
        raise InputError(f"{where}: the braces of the hierarchy do not close; the file is damaged or cut short")
    for name, channels, offset in zip(tree.names, tree.channels, tree.offsets, strict=True):
        if len(offset) != 3 or not np.isfinite(offset).all():
            raise InputError(f"{where}: the OFFSET of {name!r} is {offset}; three finite numbers are wanted")
        bad = [c for c in channels if not CHANNEL.fullmatch(c)]
        if bad or len({c.lower() for c in channels}) != len(channels):
            raise InputError(f"{where}: the channels of {name!r} are {channels}; Xposition ... Zrotation, each once, are known")


def _frames(text: str, channels: int, reading: Reading, where: str) -> tuple[NDArray[np.float64], float, list[str]]:
    """Return the numbers of the frames (T, channels), the frames per second and what is to be said of them."""
    declared = re.search(r"(?i)frames\s*:\s*(\S+)", text)
    time = re.search(r"(?i)frame[ \t]+time[ \t]*:?[ \t]*([^\s]+)", text)
    start = max(match.end() for match in (declared, time) if match) if declared or time else 0
    try:
        step = float(time[1]) if time else 0.0
        count = int(declared[1]) if declared else -1
    except ValueError:
        raise InputError(
            f"{where}: frames {declared and declared[1]!r} and frame time {time and time[1]!r} are no numbers"
        ) from None
    if reading.fps is None and not 0 < step < 10:
        raise InputError(f"{where}: the frame time is {step if time else 'missing'}; give the frame rate (--fps)")
    values = numbers(text[start:], where)
    if not channels:
        raise InputError(f"{where}: no joint has channels; nothing moves")
    whole_frames = len(values) // channels
    if len(values) % channels or (count >= 0 and whole_frames != count):
        raise InputError(f"{where}: {_miscounted(len(values), count, channels)}")
    if not np.isfinite(values).all():
        frame = int(np.flatnonzero(~np.isfinite(values))[0]) // channels
        raise InputError(f"{where}: numbers of frame {frame} are not finite (NaN or infinity); fill or cut these frames")
    told = overruled(reading, 1.0 / step if 0 < step < 10 else None)
    return values.reshape(whole_frames, channels), reading.fps or 1.0 / step, told


def _miscounted(found: int, count: int, channels: int) -> str:
    """What is wrong with so many numbers for the frames that a file states (-1: it states none)."""
    frames, rest = divmod(found, channels)
    if frames > count >= 0:
        more = f" and {rest} number{'s' * (rest != 1)} more" if rest else ""
        return (
            f"has more frames than it states: 'Frames: {count}' of {channels} channels are {count * channels} numbers, "
            f"it holds {found} ({frames} frames{more}); write the right number there, or cut the rest"
        )
    return (
        f"{found} numbers for {count if count >= 0 else 'unknown'} frames of {channels} channels "
        f"({frames} frames and {rest} numbers more); the file is cut short or damaged"
    )


def _local(tree: Tree, values: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor, list[str]]:
    """Return local rotations (T, J, 3, 3), offsets per frame (T, J, 3) and what was decided about position channels."""
    frames, joints = len(values), len(tree.names)
    rotations = torch.eye(3, dtype=values.dtype).expand(frames, joints, 3, 3).clone()
    places = torch.zeros(frames, joints, 3, dtype=values.dtype)
    placed = torch.zeros(joints, 3, dtype=torch.bool)
    column = 0
    for joint, channels in enumerate(tree.channels):
        for channel in channels:
            axis, turns = "XYZ".index(channel[0].upper()), channel[1:].lower() == "rotation"
            if turns:
                rotations[:, joint] = rotations[:, joint] @ about(axis, torch.deg2rad(values[:, column]))
            else:
                places[:, joint, axis], placed[joint, axis] = values[:, column], True
            column += 1
    return rotations, *_offsets(places, placed, offsets)


def _offsets(places: Tensor, placed: Tensor, offsets: Tensor) -> tuple[Tensor, list[str]]:
    mean, notes = places.mean(0), []
    moving = placed.any(-1)
    inner, added = moving.clone(), torch.zeros_like(moving)
    inner[0] = False
    for which, what in ((inner, "joints"), (moving & ~inner, "the root")):
        there = which[:, None] & placed & (offsets != 0)
        if not bool(there.any()):
            continue
        adds = float((mean - offsets)[there].norm()) > float(mean[there].norm())
        added = torch.where(which, torch.tensor(adds), added)
        notes.append(f"position channels of {what} are {'added to' if adds else 'taken instead of'} the OFFSET")
    base = torch.where(placed & ~added[:, None], 0.0, offsets)
    return base + places, notes


def about(axis: int, angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """Return rotations about a coordinate axis (0, 1, 2) by angles [rad]."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = {
        0: (one, zero, zero, zero, c, -s, zero, s, c),
        1: (c, zero, s, zero, one, zero, -s, zero, c),
        2: (c, -s, zero, s, c, zero, zero, zero, one),
    }[axis]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def write_bvh(path: str | Path, motion: HumanMotion) -> Path:
    """Write a motion of joints as BVH: metres, z up (as `HumanMotion`), ZXY rotations, and return the path.

    A motion with rotations and rest offsets that give its positions is written so, with position channels of the root only.
    Else (joints generated as points) every joint has position channels, in the world's axes and without rotations: exact, and
    read back by `read_bvh` and Blender.

    Raises:
        InputError: markers, or several roots.
    """
    if motion.kind != "joints" or motion.parents.count(-1) != 1:
        raise InputError(f"{motion.source or 'the motion'}: a BVH file holds one tree of joints, not {motion.kind}; write .npz")
    rotations, rest = motion.rotations, motion.rest
    rigid = rotations is not None and rest is not None and _error(motion) < 1e-4
    parents = list(motion.parents)
    local = motion.positions.double().clone()
    inner = [j for j, parent in enumerate(parents) if parent >= 0]
    local[:, inner] -= motion.positions.double()[:, [parents[j] for j in inner]]
    offsets = local.mean(0) if not rigid or rest is None else rest.double()
    offsets[0] = 0.0
    lines, order = ["HIERARCHY"], list[int]()
    _lines(motion, offsets, 0, 0, rigid, lines, order)
    columns = []
    for joint in order:
        if joint == 0 or not rigid:
            columns.append(local[:, joint])
        if rigid and rotations is not None:
            columns.append(torch.rad2deg(zxy(rotations[:, joint].double())))
    table = torch.cat(columns, 1).numpy()
    lines += ["MOTION", f"Frames: {len(table)}", f"Frame Time: {1 / motion.fps:.9g}"]
    lines += [" ".join(f"{x:.7g}" for x in row) for row in table]
    path = Path(path)
    with whole(path) as part:
        part.write_text("\n".join(lines) + "\n")
    return path


def _error(motion: HumanMotion) -> float:
    """Return how far the joints of the rotations and rest offsets are from the positions at most [m]."""
    offsets = motion.rest.double().expand(len(motion), -1, -1).clone()  # type: ignore[union-attr]
    offsets[:, 0] = motion.positions[:, 0].double()
    places, _ = forward_kinematics(motion.rotations.double(), offsets, motion.parents)  # type: ignore[union-attr]
    return float((places - motion.positions.double()).norm(dim=-1).max())


def _lines(
    motion: HumanMotion, offsets: Tensor, joint: int, depth: int, rigid: bool, lines: list[str], order: list[int]
) -> None:
    """Append a joint and what hangs on it; ``order`` gets the joints that have channels, as their columns come."""
    pad, children = "\t" * depth, [child for child, parent in enumerate(motion.parents) if parent == joint]
    name = re.sub(r"\s+", "_", motion.names[joint])
    end = rigid and not children and joint > 0 and name.endswith("_end")
    kind = "End Site" if end else f"ROOT {name}" if joint == 0 else f"JOINT {name}"
    lines += [f"{pad}{kind}", f"{pad}{{", f"{pad}\tOFFSET " + " ".join(f"{x:.7g}" for x in offsets[joint].tolist())]
    if not end:
        order.append(joint)
        places, turns = "Xposition Yposition Zposition", "Zrotation Xrotation Yrotation"
        said = f"6 {places} {turns}" if rigid and joint == 0 else f"3 {turns}" if rigid else f"3 {places}"
        lines.append(f"{pad}\tCHANNELS {said}")
        for child in children:
            _lines(motion, offsets, child, depth + 1, rigid, lines, order)
    lines.append(f"{pad}}}")


def zxy(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Return the angles z, x, y [rad] with ``rotation = Rz(z) Rx(x) Ry(y)``."""
    x = rotation[..., 2, 1].clamp(-1, 1).asin()
    locked = rotation[..., 2, 1].abs() > 1 - 1e-12
    z = torch.where(
        locked, torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0]), torch.atan2(-rotation[..., 0, 1], rotation[..., 1, 1])
    )
    y = torch.where(locked, torch.zeros_like(x), torch.atan2(-rotation[..., 2, 0], rotation[..., 2, 2]))
    return torch.stack((z, x, y), -1)
