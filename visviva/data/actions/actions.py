"""Labelled simulated actions: draw clips by name, with captions, joints, rotations and everything that varied.

Controllers write plans (where feet stand, what arms and trunk do, how high the body flies); `visviva.data.actions.balance`
moves the body so that a ground under the standing feet can explain the motion. They are no recordings: simple, symmetric, and
without the detail of people. What they are good for: labels and physics that are known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visviva.data.actions import gaits, leaps, stands
from visviva.data.actions.balance import balanced
from visviva.data.actions.draws import Draws
from visviva.data.actions.figure import STATURE, offsets
from visviva.data.actions.plan import Plan, joined
from visviva.data.motions.humanml3d import NAMES, PARENTS
from visviva.data.motions.motion import HumanMotion
from visviva.errors import InputError, closest

Controller = Callable[[Tensor, Draws], tuple[Plan, list[str]]]
ACTIONS: dict[str, Controller] = {
    "walk": gaits.walk,
    "run": gaits.run,
    "march": gaits.march,
    "side step": gaits.side_step,
    "turn": gaits.turn,
    "jump": leaps.jump,
    "jump forward": leaps.jump_forward,
    "jumping jack": leaps.jumping_jack,
    "squat": stands.squat,
    "wave": stands.wave,
    "kick": stands.kick,
    "punch": stands.punch,
    "throw": stands.throw,
    "bow": stands.bow,
    "lunge": stands.lunge,
}
"""Actions by name; each makes the plans and captions of B clips from times and draws."""
RATE = 60.0
"""Least frames per second at which motions are solved."""
MARGIN = 0.6
"""Solved before the first and after the last frame [s]."""
TOGETHER = 64
"""Clips that are solved at once."""


@dataclass(frozen=True)
class Actions:
    """B clips of T frames.

    Attributes:
        names: of the actions, B; ``captions``: an English sentence each.
        joints: (B, T, 22, 3) [m], z up, floor at 0; float32.
        rotations: local, (B, T, 22, 3, 3), and ``rest``, offsets to the parents, (B, 22, 3) [m], as `HumanMotion` has them.
        fps: frames per second.
        speed: tempo, 1 is usual, (B,); ``stature``: [m], (B,).
    """

    names: tuple[str, ...]
    captions: tuple[str, ...]
    joints: Tensor
    rotations: Tensor
    rest: Tensor
    fps: float
    speed: Tensor
    stature: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def motion(self, index: int) -> HumanMotion:
        """Return one clip."""
        return HumanMotion(
            self.joints[index], NAMES, PARENTS, self.fps, rotations=self.rotations[index], rest=self.rest[index], floor=0.0,
            source=f"simulated {self.names[index]}", notes=(f"simulated: {self.captions[index]}",),
        )  # fmt: skip


def draw(names: Sequence[str], seed: int, fps: float = 20.0, seconds: float = 3.0) -> Actions:
    """Draw one clip for each name; the same arguments give the same bits.

    Statures are 1.5 to 1.95 m, tempi 0.7 to 1.4 (evenly in their logarithm), headings any; what else varies is in the captions.

    Args:
        names: of `ACTIONS`, in any order and number.
        seed: of everything random.
        fps: frames per second.
        seconds: length of a clip; T is ``round(seconds * fps)``.

    Raises:
        InputError: no or unknown names, a frame rate or length that is not positive, clips of fewer than 2 frames.

    Example::

        batch = draw(["walk", "jump"], seed=0)
        batch.joints.shape, batch.captions[0]  # (2, 60, 22, 3), "a person walks forward slowly"
    """
    for name in names:
        if name not in ACTIONS:
            raise InputError(f"no action {name!r}{closest(name, ACTIONS)}; there are {', '.join(ACTIONS)}")
    if not names:
        raise InputError("no actions to draw; give at least one name")
    if not (0 < fps <= 1000 and 0 < seconds <= 60) or round(seconds * fps) < 2:
        raise InputError(f"{seconds:g} s at {fps:g} frames/s; give up to 60 s and 1000 frames/s, and 2 frames or more")
    generator = torch.Generator().manual_seed(seed)
    frames = round(seconds * fps)
    parts = [_solved(names[k : k + TOGETHER], generator, fps, frames) for k in range(0, len(names), TOGETHER)]
    tensors = [torch.cat([getattr(part, key) for part in parts]) for key in ("joints", "rotations", "rest", "speed", "stature")]
    captions = tuple(caption for part in parts for caption in part.captions)
    return Actions(tuple(names), captions, tensors[0], tensors[1], tensors[2], fps, tensors[3], tensors[4])


def _solved(names: Sequence[str], generator: torch.Generator, fps: float, frames: int) -> Actions:
    """Draw and solve clips together."""
    step = math.ceil(RATE / fps)
    dt = 1 / (fps * step)
    before = math.ceil(MARGIN / (dt * step)) * step
    times = torch.arange(-before, frames * step + before, dtype=torch.float64) * dt
    plans, tempi = [], []
    captions: list[str] = []
    order: list[int] = []
    for name in dict.fromkeys(names):
        mine = [k for k, other in enumerate(names) if other == name]
        draws = drawn(len(mine), generator)
        plan, said = ACTIONS[name](times, draws)
        plans.append(personal(plan, draws))
        tempi.append(draws.tempo)
        captions += said
        order += mine
    plan = joined(plans)
    joints, rotations = balanced(plan, dt)
    kept = slice(before, before + frames * step, step)
    joints, rotations = headed(joints[:, kept], rotations[:, kept], generator)
    rest = offsets() * plan.size[:, None, None]
    back = torch.tensor(order).argsort()
    tensors = [x[back].float() for x in (joints, rotations, rest, torch.cat(tempi), plan.size * STATURE)]
    spoken = tuple(captions[k] for k in back.tolist())
    return Actions(tuple(names), spoken, tensors[0], tensors[1], tensors[2], fps, tensors[3], tensors[4])


def drawn(count: int, generator: torch.Generator) -> Draws:
    """Return the tempi and statures of some clips."""
    one, two = torch.rand(2, count, generator=generator, dtype=torch.float64)
    size = (1.5 + 0.45 * two) / STATURE
    return Draws((math.log(0.7) + math.log(2) * one).exp(), size, generator)


def personal(plan: Plan, draws: Draws) -> Plan:
    """Add each clip's own posture, and slow sway of trunk, head and arms."""
    count = len(plan.size)
    for values, lasting, moving in ((plan.spine, 0.04, 0.015), (plan.neck, 0.06, 0.03), (plan.arms.flatten(2), 0.08, 0.03)):
        width = values.shape[-1]
        own, rate, phase = (torch.rand(count, 1, width, generator=draws.generator, dtype=torch.float64) for _ in range(3))
        slow = (2 * math.pi * ((0.1 + 0.5 * rate) * plan.times[:, None] + phase)).sin()
        values += lasting * (2 * own - 1) + moving * slow
    return plan


def headed(joints: Tensor, rotations: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Turn each clip to a random heading, and put its first pelvis above the origin."""
    yaw = 2 * math.pi * torch.rand(len(joints), generator=generator, dtype=joints.dtype)
    c, s, zero = yaw.cos(), yaw.sin(), torch.zeros_like(yaw)
    turn = torch.stack([c, -s, zero, s, c, zero, zero, zero, zero + 1], -1).view(-1, 1, 3, 3)
    start = joints[:, :1, :1] * joints.new_tensor([1.0, 1.0, 0.0])
    rotations = rotations.clone()
    rotations[:, :, 0] = turn @ rotations[:, :, 0]
    return (joints - start) @ turn.mT, rotations
