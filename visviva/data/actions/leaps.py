"""Leaps: jump in place, jump forward, jumping jack. The centre of mass flies as gravity wants."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.actions.curves import keyed
from visviva.data.actions.draws import Draws, said
from visviva.data.actions.gaits import bounced
from visviva.data.actions.plan import Plan, standing

TAKE_OFF = 0.04
"""Height of the centre of mass at take-off and touch-down, above that of standing [m at 1.70 m]."""
LEAVE = 0.09
"""After take-off and before touch-down, how long the feet take to follow the body [s]."""


def leapt(plan: Plan, draws: Draws, fly: Tensor, depth: Tensor, forward: Tensor) -> tuple[Plan, Tensor]:
    """Fill in crouch, push, flight, landing and recovery, again and again; return the plan and when it takes off, (B,).

    Args:
        fly: duration of the flight [s].
        depth: of the crouch [m].
        forward: how far the feet move each time [m].
    """
    times, g = plan.times, plan.gravity[:, 0]
    speed = g * fly / 2
    push = 2.1 * (depth + TAKE_OFF) / speed
    sink, rest = draws.uniform(0.4, 0.55) / draws.tempo, draws.uniform(0.5, 0.7) / draws.tempo
    catch, soft = 1.9 * (0.75 * depth + TAKE_OFF) / speed, 0.75 * depth
    sink, rest = sink.maximum(0.95 * depth.sqrt()), rest.maximum(0.95 * soft.sqrt())  # who sinks faster leaves the floor
    start = draws.starts()
    off = sink + push
    land = off + fly
    every = land + catch + rest + draws.uniform(0.15, 0.5)
    brake = 1.2 * speed / push
    zero = 0 * fly
    plan.height = keyed(
        times, start, every,
        [(0.0, 0.0), (sink, -depth, 0.0, brake), (off, zero + TAKE_OFF, speed, -g), (land, zero + TAKE_OFF, -speed, -g),
         (land + catch, -soft, 0.0, 1.1 * speed / catch), (land + catch + rest, zero)],
    )  # fmt: skip
    low, rising = speed * LEAVE - g * LEAVE**2 / 2, speed - g * LEAVE
    lift = [(off - 0.035, zero), (off + LEAVE, low, rising, -g), (land - LEAVE, low, -rising, -g), (land + 0.03, zero)]
    tuck = [(off + 0.3 * LEAVE, zero), ((off + land) / 2, draws.uniform(0.0, 0.1) * fly / 0.5), (land - 0.3 * LEAVE, zero)]
    raised = keyed(times, start, every, lift) + keyed(times, start, every, tuck)
    toes = [(off - 0.75 * push, zero), (off + 0.03, zero + 0.95), (land - 0.02, zero + 0.35), (land + 0.09, zero)]
    point = keyed(times, start, every, toes)
    count = torch.floor((times - start[:, None] - off[:, None]) / every[:, None]).clamp(min=-1)
    there = forward[:, None] * (count.clamp(min=0) * 1.0 + _progress(times, start, every, off, land, count))
    for foot in (0, 1):
        plan.lift[:, :, foot], plan.point[:, :, foot] = raised, point
        plan.place[:, :, foot, 0] += there
    plan.pelvis[..., 0] = there
    _counter(plan, start, every, sink, off, land, land + catch, depth)
    return plan, start + off


def _progress(times: Tensor, start: Tensor, every: Tensor, off: Tensor, land: Tensor, count: Tensor) -> Tensor:
    """How far of the present leap the feet have come, 0 to 1; 0 before the first take-off."""
    since = times - (start + off)[:, None] - count * every[:, None]
    s = (since / (land - off)[:, None]).clamp(0, 1)
    s = s + 0.3 * s * (1 - s) ** 2
    return torch.where(count < 0, 0.0, s**3 * (10 - 15 * s + 6 * s * s))


def _counter(
    plan: Plan, start: Tensor, every: Tensor, sink: Tensor, off: Tensor, land: Tensor, caught: Tensor, depth: Tensor
) -> None:
    """Bend the trunk in the crouch, and swing the arms back, up, and down again."""
    zero, lean = 0 * depth, 1.6 * depth
    end = caught + 0.5
    keys = [(zero, zero), (sink, lean), (off + 0.05, zero), (land - 0.05, zero), (caught, 0.7 * lean), (end, zero)]
    bent = keyed(plan.times, start, every, keys)
    plan.pitch = plan.pitch + bent
    plan.spine[..., 0] += 0.5 * bent
    plan.neck[..., 0] -= 0.6 * bent
    swing = [(zero, zero), (0.75 * sink, zero - 0.6), (off + 0.06, zero + 1.4), (land, zero + 1.2), (caught + 0.3, zero)]
    plan.arms[..., 0] += keyed(plan.times, start, every, swing)[..., None]


def jump(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Jump in place, once or again."""
    fly, depth = draws.uniform(0.34, 0.54), draws.uniform(0.2, 0.32)
    plan = standing(times, draws.size, draws.uniform(0.2, 0.34), ballistic=True)
    plan, _ = leapt(plan, draws, fly, depth, 0 * fly)
    phrases = [["jumps up", "jumps in place", "jumps straight up", "is jumping on the spot", "leaps up"]] * len(fly)
    return plan, said(draws, phrases, [["high" if f > 0.48 else "a little" if f < 0.39 else ""] for f in fly.tolist()])


def jump_forward(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Jump forward with both feet."""
    fly, depth, far = draws.uniform(0.34, 0.46), draws.uniform(0.22, 0.32), draws.uniform(0.4, 0.9)
    plan = standing(times, draws.size, draws.uniform(0.2, 0.34), ballistic=True)
    plan, _ = leapt(plan, draws, fly, depth, far)
    phrases = [["jumps forward", "leaps forward", "hops ahead with both feet", "makes a jump forward"]] * len(fly)
    return plan, said(draws, phrases, [["far" if f > 0.72 else "a short way" if f < 0.52 else ""] for f in far.tolist()])


def jumping_jack(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Hop with the feet apart and together again, the arms going up and down."""
    fly = draws.uniform(0.18, 0.23)
    stand = draws.uniform(0.24, 0.28) / draws.tempo.clamp(0.8, 1.3)
    hop = fly + stand
    begin = times[0] - draws.uniform(0, 2) * hop
    plan = standing(times, draws.size, draws.uniform(0.2, 0.26), ballistic=True)
    plan.height = bounced(plan, hop, stand / hop, -begin / hop) + 0.02
    zero, spread = 0 * fly, draws.uniform(0.28, 0.42)
    apart = keyed(times, begin, 2 * hop, [(stand, zero), (hop, spread), (hop + stand, spread), (2 * hop, zero)])
    plan.lift += keyed(times, begin, hop, [(stand, zero), (stand + fly / 2, zero + 0.075), (hop, zero)])[..., None]
    toes = [(0.5 * stand, zero), (stand + 0.3 * fly, zero + 0.5), (hop, zero + 0.15)]
    plan.point += keyed(times, begin, hop, [*toes, (hop + 0.1, zero)])[..., None]
    plan.place[..., 1] += apart[..., None] / 2 * torch.tensor([1.0, -1.0], dtype=torch.float64)
    angle = math.pi * (times - (begin + stand / 2)[:, None]) / hop[:, None]
    plan.arms[..., 1] += (draws.uniform(2.0, 2.7)[:, None] * (1 - angle.cos()) / 2)[..., None]
    plan.arms[..., 3] = 0.2
    phrases = [["does jumping jacks", "performs jumping jacks", "is doing star jumps", "jumps with arms and legs apart"]]
    return plan, said(draws, phrases * len(fly))
