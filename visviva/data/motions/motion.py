"""Human motion: joints or markers over time, in metres, z up, right-handed, whatever the file said; and what was changed.

A skeleton's joints are a tree (``parents``); markers are not tied to each other (every parent is -1). Where a file gives
rotations they are local, in the parent's frame, with rest offsets, so that

    R_j = R_parent(j) rotations_j        x_j = x_parent(j) + R_parent(j) rest_j        x_root = positions[:, root]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError

LEAST_FRAMES = 2


@dataclass(frozen=True)
class Plate:
    """What one force plate measured: the ground's force on the body, in the world of the motion.

    Attributes:
        force: (S, 3) [N]; ``centre``: of pressure, (S, 3) [m], zero where the plate is not loaded.
        fps: samples per second; ``corners``: of the plate, (4, 3) [m], or None where the file does not say.
    """

    force: Tensor
    centre: Tensor
    fps: float
    corners: Tensor | None = None


@dataclass(frozen=True)
class HumanMotion:
    """A recorded, animated or generated motion of one person.

    Attributes:
        positions: of joints or markers, (T, J, 3) [m], z up, right-handed.
        names, parents: of the joints, J of them; a parent of -1 is none.
        fps: frames per second.
        kind: ``joints`` or ``markers``.
        rotations: local, (T, J, 3, 3), or None; ``rest``: offsets to the parent at rest, (J, 3) [m], or None.
        visible: (T, J); False where a marker was hidden and its place interpolated. None: all were seen.
        contacts: labelled ground contacts, (T, C), with ``contact_joints``, C indices of joints; or None.
        plates: force plates.
        floor: height of the floor where the file or format fixes it [m]; None: unknown.
        source: the file; ``notes``: what was detected, assumed and changed, one sentence each.

    Raises:
        InputError: shapes that do not fit, fewer than 2 frames, positions that are not finite, a frame rate that is not
            positive, parents that are no tree.

    Example::

        motion = HumanMotion(torch.rand(60, 2, 3), ("hip", "knee"), (-1, 0), fps=30.0)
        motion.seconds  # 2.0
    """

    positions: Tensor
    names: tuple[str, ...]
    parents: tuple[int, ...]
    fps: float
    kind: str = "joints"
    rotations: Tensor | None = None
    rest: Tensor | None = None
    visible: Tensor | None = None
    contacts: Tensor | None = None
    contact_joints: tuple[int, ...] = ()
    plates: tuple[Plate, ...] = ()
    floor: float | None = None
    source: str = ""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse what is no motion."""
        where = f"{self.source}: " if self.source else ""
        if self.positions.ndim != 3 or self.positions.shape[-1] != 3 or not self.positions.shape[1]:
            raise InputError(f"{where}positions have the shape {tuple(self.positions.shape)}; (frames, joints, 3) is wanted")
        frames, joints = self.positions.shape[:2]
        if frames < LEAST_FRAMES:
            raise InputError(
                f"{where}a motion of {frames} frame{'s' * (frames != 1)} does not move; give at least {LEAST_FRAMES} frames"
            )
        if len(self.names) != joints or len(self.parents) != joints:
            raise InputError(
                f"{where}{joints} joints with {len(self.names)} names and {len(self.parents)} parents; give one each"
            )
        if not 0 < self.fps < float("inf"):
            raise InputError(f"{where}the frame rate is {self.fps}; give a positive number of frames per second (--fps)")
        bad = ~self.positions.isfinite().all(-1)
        if bool(bad.any()):
            frame, joint = bad.nonzero()[0].tolist()
            raise InputError(
                f"{where}{int(bad.sum())} positions are not finite (NaN or infinity), the first of {self.names[joint]!r} in "
                f"frame {frame}; fill or cut these frames"
            )
        if any(not -1 <= parent < index for index, parent in enumerate(self.parents)):
            raise InputError(
                f"{where}the parents {self.parents} are no tree with parents before their children; order the joints"
            )
        for name, shape in (("rotations", (frames, joints, 3, 3)), ("rest", (joints, 3)), ("visible", (frames, joints))):
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise InputError(f"{where}{name} have the shape {tuple(value.shape)}; {shape} is wanted")

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def seconds(self) -> float:
        """Duration [s]."""
        return len(self) / self.fps

    @property
    def bones(self) -> list[tuple[int, int]]:
        """Pairs (parent, child) of joints."""
        return [(parent, child) for child, parent in enumerate(self.parents) if parent >= 0]

    def joint(self, name: str) -> Float[Tensor, "T 3"]:
        """Return where a joint is over time [m]."""
        if name not in self.names:
            raise InputError(f"no joint {name!r}; the joints are {', '.join(self.names)}")
        return self.positions[:, self.names.index(name)]

    def noted(self, *notes: str, **changes: Any) -> HumanMotion:
        """Return the motion with changes and with what is to be said of them."""
        return replace(self, notes=(*self.notes, *notes), **changes)

    def cut(self, start: int, stop: int) -> HumanMotion:
        """Return the frames from ``start`` to before ``stop``; plates are cut to the same time."""
        per_frame = {name: getattr(self, name) for name in ("positions", "rotations", "visible", "contacts")}
        cut: dict[str, Any] = {name: value if value is None else value[start:stop] for name, value in per_frame.items()}
        return replace(self, **cut, plates=cut_plates(self.plates, self.fps, start, min(stop, len(self))))


def cut_plates(plates: Sequence[Plate], fps: float, start: int, stop: int) -> tuple[Plate, ...]:
    """Return plates cut to the time of the frames from ``start`` to before ``stop`` of a motion at ``fps``."""
    found = []
    for plate in plates:
        first, last = (round(frame / fps * plate.fps) for frame in (start, stop))
        found.append(replace(plate, force=plate.force[first:last], centre=plate.centre[first:last]))
    return tuple(found)


def forward_kinematics(
    rotations: Float[Tensor, "*batch J 3 3"], offsets: Float[Tensor, "#*batch J 3"], parents: Sequence[int]
) -> tuple[Float[Tensor, "*batch J 3"], Float[Tensor, "*batch J 3 3"]]:
    """Return positions and world rotations of the joints of a tree.

    ``R_j = R_parent rotations_j``, ``x_j = x_parent + R_parent offsets_j``; a root's offset is its place. Differentiable; the
    only loop is over joints.

    Args:
        rotations: local, (..., J, 3, 3).
        offsets: to the parent, in its frame, (J, 3) or per frame (..., J, 3) [m].
        parents: parents before children, -1 for roots.
    """
    offsets = offsets.expand(*rotations.shape[:-2], 3)
    places: list[Tensor] = []
    turns: list[Tensor] = []
    for joint, parent in enumerate(parents):
        turn, offset = rotations[..., joint, :, :], offsets[..., joint, :]
        if parent < 0:
            places.append(offset)
            turns.append(turn)
        else:
            places.append(places[parent] + (turns[parent] @ offset[..., None])[..., 0])
            turns.append(turns[parent] @ turn)
    return torch.stack(places, -2), torch.stack(turns, -3)


def filled(positions: Float[Tensor, "T J 3"], visible: Bool[Tensor, "T J"]) -> Float[Tensor, "T J 3"]:
    """Return positions with hidden points interpolated linearly in time (held before the first and after the last sight)."""
    frames = torch.arange(len(positions), device=positions.device)[:, None].expand(visible.shape)
    last = torch.where(visible, frames, -1).cummax(0).values
    later = torch.where(visible, frames, len(positions)).flip(0).cummin(0).values.flip(0)
    before = torch.where(last < 0, later, last).clamp(max=len(positions) - 1)
    after = torch.where(later >= len(positions), last, later).clamp(min=0)
    share = ((frames - before) / (after - before).clamp(min=1)).clamp(0, 1)[..., None].to(positions.dtype)

    def at(index: Tensor) -> Tensor:
        return positions.gather(0, index[..., None].expand(-1, -1, 3))

    return torch.where(visible[..., None], positions, at(before) * (1 - share) + at(after) * share)
