"""Gaits: walk, run, march, side step, turn around. Feet step alternately along a path; each stands where the path is midway."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.actions.curves import keyed, quintic
from visviva.data.actions.draws import Draws, said, side
from visviva.data.actions.plan import Plan, standing

Path = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From times (B, n) to places (B, n, 2) and yaws (B, n)."""
NEVER = 1e-9


@dataclass(frozen=True)
class Steps:
    """How the feet step: (B,) each; lengths at 1.70 m, angles in radians, ``duty`` the share of a period that a foot stands,
    ``always`` whether a foot also steps where it stays in place."""

    period: Tensor
    duty: Tensor
    phase: Tensor
    width: Tensor
    lift: Tensor
    toe_off: Tensor
    heel_strike: Tensor
    always: bool = True


def stepped(plan: Plan, steps: Steps, path: Path) -> Plan:
    """Fill in the feet, their loads and the pelvis of a gait; a step that goes nowhere is not made."""
    places, _ = path(plan.times.expand(len(steps.period), -1))
    plan.pelvis = places
    light = []
    for foot in (0, 1):
        begin, end = _stances(plan.times, steps, foot)
        where, yaw = path((begin + end) / 2)
        across = torch.stack([-yaw.sin(), yaw.cos()], -1)
        where = where + (0.5 - foot) * steps.width[:, None, None] * across
        active = _activity(where, yaw, steps)
        _step(plan, steps, foot, (begin, end), where, yaw, active)
        light.append(_unloaded(plan.times, steps, begin, end, active))
    plan.load = torch.stack([0.5 + (light[1] - light[0]) / 2, 0.5 + (light[0] - light[1]) / 2], -1)
    return plan


def _stances(times: Tensor, steps: Steps, foot: int) -> tuple[Tensor, Tensor]:
    """When a foot comes down and leaves again, (B, K)."""
    period = steps.period[:, None]
    count = math.ceil(float((times[-1] - times[0]) / steps.period.min())) + 4
    cycle = torch.floor(times[0] / period) - 1 + torch.arange(count, dtype=times.dtype)
    begin = (cycle - steps.phase[:, None] + 0.5 * foot) * period
    return begin, begin + steps.duty[:, None] * period


def _activity(where: Tensor, yaw: Tensor, steps: Steps) -> Float[Tensor, "B S"]:
    """How much of a step each swing is: 0 where the foot stays."""
    moved = where.diff(dim=1).norm(dim=-1) / 0.15 + yaw.diff(dim=1).abs() / 0.3
    return torch.ones_like(moved) if steps.always else moved.clamp(max=1)


def _step(plan: Plan, steps: Steps, foot: int, when: tuple[Tensor, Tensor], where: Tensor, yaw: Tensor, active: Tensor) -> None:
    begin, end = when
    times, period = plan.times, steps.period[:, None]
    leave, land = end[:, :-1], begin[:, 1:]
    for axis in (0, 1):
        plan.place[:, :, foot, axis] = _carried(times, leave, land, where[..., axis])
    at = torch.stack([begin, end], -1).flatten(1)
    plan.turn[:, :, foot] += quintic(times, at, yaw.repeat_interleave(2, -1))
    at = torch.stack([leave, (0.55 * leave + 0.45 * land), land], -1).flatten(1)
    zero, high = torch.zeros_like(active), steps.lift[:, None] * active
    plan.lift[:, :, foot] = quintic(times, at, torch.stack([zero, high, zero], -1).flatten(1))
    stand = steps.duty[:, None] * period
    rise, middle, flat = leave - 0.4 * stand, leave + 0.65 * (land - leave), land + 0.16 * stand
    at = torch.stack([rise, leave + 0.12 * (land - leave), middle, land, flat], -1).flatten(1)
    off, strike = steps.toe_off[:, None] * active, -steps.heel_strike[:, None] * active
    plan.point[:, :, foot] = quintic(times, at, torch.stack([zero, off, 0.6 * strike, strike, zero], -1).flatten(1))
    at = torch.stack([leave, land, flat, land + 0.6 * stand], -1).flatten(1)
    one = zero + 1
    plan.heel[:, :, foot] = quintic(times, at, torch.stack([zero, one, one, zero], -1).flatten(1))


def _carried(times: Tensor, leave: Tensor, land: Tensor, where: Tensor) -> Float[Tensor, "B T"]:
    """One coordinate of a foot that stands at places (B, K) one after the other; it hurries at first, for the body is ahead."""
    moved, swing = where.diff(dim=1), land - leave
    soon, share, pace = 0.25, 0.16, 1.3
    at = torch.stack([leave, leave + soon * swing, land], -1).flatten(1)
    places = torch.stack([where[:, :-1], where[:, :-1] + share * moved, where[:, 1:]], -1).flatten(1)
    speeds = torch.stack([0 * moved, pace * moved / swing, 0 * moved], -1).flatten(1)
    return quintic(times, at, places, speeds)


def _unloaded(times: Tensor, steps: Steps, begin: Tensor, end: Tensor, active: Tensor) -> Float[Tensor, "B T"]:
    """1 where only the other foot carries."""
    both = (steps.duty - 0.5)[:, None] * steps.period[:, None]
    double, flight = both.clamp(min=0), (-both).clamp(min=0)
    leave, land, zero = end[:, :-1], begin[:, 1:], torch.zeros_like(active)
    at = torch.stack([leave - double, leave + flight + NEVER, land - flight - NEVER, land + double], -1).flatten(1)
    return quintic(times, at, torch.stack([zero, active, active, zero], -1).flatten(1))


def swung(plan: Plan, steps: Steps, amount: Tensor, bend: Tensor) -> Plan:
    """Swing the arms against the legs, and twist the trunk a little."""
    angle = 2 * math.pi * (plan.times / steps.period[:, None] + steps.phase[:, None])
    for foot, sign in ((0, -1.0), (1, 1.0)):
        wave = sign * (angle - 0.3).cos()
        plan.arms[:, :, foot, 0] += amount[:, None] * (wave - 0.1)
        plan.arms[:, :, foot, 3] = bend[:, None] + 0.35 * amount[:, None] * wave
    plan.yaw = plan.yaw - 0.12 * amount[:, None] * (angle - 0.3).cos()
    plan.spine[..., 2] += 0.3 * amount[:, None] * (angle - 0.3).cos()
    return plan


def _straight(speed: Tensor, curve: Tensor, lean: Tensor | float = 0.0) -> Path:
    """A path at constant speed [m/s] that turns by ``curve`` [rad/m]; it goes ``lean`` [rad] to the left of the heading."""

    def path(times: Tensor) -> tuple[Tensor, Tensor]:
        way = speed[:, None] * times
        yaw = curve[:, None] * way
        half = torch.sinc(yaw / 2 / math.pi) * way
        angle = yaw / 2 + (lean[:, None] if isinstance(lean, Tensor) else lean)
        return half[..., None] * torch.stack([angle.cos(), angle.sin()], -1), yaw

    return path


def walk(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Walk forward or, less often, backward, straight or in a curve."""
    tempo, back = draws.tempo, draws.sign(0.8)
    period = draws.uniform(1.02, 1.2) * draws.size.sqrt() / tempo
    stride = draws.uniform(1.0, 1.45) * torch.where(back > 0, 1.0, 0.6)
    curve = torch.where(draws.uniform(0, 1) < 0.5, 0.0, draws.sign() * draws.uniform(0.25, 0.6)) * (back > 0)
    steps = Steps(
        period, draws.uniform(0.6, 0.64), draws.uniform(0, 1), draws.uniform(0.09, 0.15), draws.uniform(0.03, 0.06),
        torch.where(back > 0, draws.uniform(0.75, 0.95) * stride / 1.3, 0.25), torch.where(back > 0, 0.25 * stride / 1.3, 0.0),
    )  # fmt: skip
    plan = stepped(standing(times, draws.size), steps, path := _straight(back * stride / period, curve))
    plan.yaw = path(times.expand(len(tempo), -1))[1]
    angle = 4 * math.pi * (times / period[:, None] + steps.phase[:, None] - steps.duty[:, None] / 2)
    bob = (0.016 * stride).minimum(0.3 * plan.gravity[:, 0] * (period / (4 * math.pi)) ** 2)  # 0.3 g at most
    plan.height = -0.018 + bob[:, None] * (angle.cos() - 1)
    plan.pitch += 0.03
    plan.roll = 0.04 * (angle / 2 + 0.5).sin()
    plan = swung(plan, steps, draws.uniform(0.2, 0.45) * stride, draws.uniform(0.2, 0.5))
    phrases, details = [], []
    for b, c, s in zip(back.tolist(), curve.tolist(), stride.tolist(), strict=True):
        way = "forward" if b > 0 else "backward"
        phrases.append([f"walks {way}", f"is walking {way}", f"takes steps {way}"] + ["walks ahead"] * (b > 0))
        turn = f"in a curve to the {side(c)}" if c else ""
        details.append([turn, "with long steps" if s > 1.32 else "with short steps" if b > 0 and s < 1.1 else ""])
    return plan, said(draws, phrases, details)


def run(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Run or jog forward: flight between the steps, of which gravity fixes the height."""
    period = draws.uniform(0.6, 0.66) / draws.tempo**0.4
    duty = draws.uniform(0.33, 0.4)
    stride = draws.uniform(1.4, 1.9) * draws.tempo**0.5
    curve = torch.where(draws.uniform(0, 1) < 0.6, 0.0, draws.sign() * draws.uniform(0.1, 0.25))
    steps = Steps(
        period, duty, draws.uniform(0, 1), draws.uniform(0.04, 0.1), draws.uniform(0.2, 0.32), draws.uniform(1.0, 1.2),
        draws.uniform(0.0, 0.1),
    )  # fmt: skip
    plan = stepped(standing(times, draws.size, ballistic=True), steps, path := _straight(stride / period, curve))
    plan.yaw = path(times.expand(len(period), -1))[1]
    plan.height = bounced(plan, period / 2, 2 * duty, steps.phase * 2) - 0.05
    plan.pitch += draws.uniform(0.08, 0.16)[:, None]
    plan.spine[..., 0] += 0.05
    plan = swung(plan, steps, draws.uniform(0.5, 0.75), draws.uniform(1.2, 1.6))
    phrases = [["runs forward", "is running", "jogs forward", "runs ahead"]] * len(period)
    return plan, said(draws, phrases, [[f"in a curve to the {side(c)}" if c else ""] for c in curve.tolist()])


def bounced(plan: Plan, period: Tensor, duty: Tensor, phase: Tensor) -> Float[Tensor, "B T"]:
    """Return the height of a centre of mass that bounces: flight under gravity, and a push ``g / duty (1 - cos)`` between.

    A period begins with touch-down; the mean push is the weight. The height at touch-down and take-off is 0 [m at 1.70 m].
    """
    g, period, duty = plan.gravity, period[:, None], duty[:, None]
    stand = duty * period
    fly = period - stand
    t = torch.remainder(plan.times + phase[:, None] * period, period)
    half, wave = g / duty, 2 * math.pi / stand
    s, f = t.minimum(stand), (t - stand).clamp(min=0)
    pushed = (half - g) * s**2 / 2 + half / wave**2 * ((wave * s).cos() - 1) - g * fly / 2 * s
    return torch.where(t < stand, pushed, g * f * (fly - f) / 2)


def march(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """March in place with raised knees."""
    period = draws.uniform(1.0, 1.2) / draws.tempo
    high = draws.uniform(0.15, 0.35)
    steps = Steps(
        period, draws.uniform(0.56, 0.6), draws.uniform(0, 1), draws.uniform(0.14, 0.2), high, draws.uniform(0.3, 0.5),
        0.0 * high,
    )  # fmt: skip
    plan = stepped(standing(times, draws.size), steps, _straight(0 * period, 0 * period))
    plan.height -= 0.02
    plan = swung(plan, steps, draws.uniform(0.25, 0.6), draws.uniform(0.4, 1.2))
    phrases = [["marches in place", "marches on the spot", "walks in place", "is marching in place"]] * len(period)
    return plan, said(draws, phrases, [["lifting the knees high" if h > 0.27 else ""] for h in high.tolist()])


def side_step(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Step sideways, the feet never crossing."""
    period, way = draws.uniform(1.0, 1.25) / draws.tempo, draws.sign()
    stride = draws.uniform(0.3, 0.5)
    steps = Steps(
        period, draws.uniform(0.58, 0.64), draws.uniform(0, 1), 0.12 + stride / 2, draws.uniform(0.05, 0.09), 0.2 + 0 * way,
        0 * way,
    )  # fmt: skip
    plan = stepped(standing(times, draws.size), steps, _straight(stride / period, 0 * way, math.pi / 2 * way))
    plan.height -= 0.05 + 0.1 * stride[:, None] ** 2
    plan.arms[..., 1] += draws.uniform(0.0, 0.3)[:, None, None]
    plan.arms[..., 3] += draws.uniform(0.0, 0.8)[:, None, None]
    phrases = []
    for w in way.tolist():
        to = side(w)
        phrases.append(
            [f"side steps to the {to}", f"steps sideways to the {to}", f"shuffles to the {to}", f"moves to their {to}"]
        )
    return plan, said(draws, phrases)


def turn(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Turn around on the spot by a half or a quarter, in steps, and stand."""
    period, way = draws.uniform(0.85, 1.0) / draws.tempo, draws.sign()
    half = draws.uniform(0, 1) < 0.6
    angle = way * torch.where(half, math.pi, math.pi / 2)
    begin, zero = draws.starts(0.2, 0.5), 0 * way
    last = begin + torch.where(half, 2.2, 1.3) * period

    def path(when: Tensor) -> tuple[Tensor, Tensor]:
        share = ((when - begin[:, None]) / (last - begin)[:, None]).clamp(0, 1)
        yaw = angle[:, None] * (3 * share**2 - 2 * share**3)
        return torch.zeros(*when.shape, 2, dtype=when.dtype), yaw

    steps = Steps(
        period, draws.uniform(0.58, 0.62), draws.uniform(0, 1), draws.uniform(0.18, 0.24), draws.uniform(0.06, 0.1),
        0.3 + zero, zero, always=False,
    )  # fmt: skip
    plan = stepped(standing(times, draws.size), steps, path)
    plan.yaw = quintic(times, torch.stack([begin, last], -1), torch.stack([zero, angle], -1))
    plan.neck[..., 2] = (
        0.35 * way[:, None] * keyed(times, begin - 0.15, zero + 1e3, [(0.0, 0.0), (0.3, 1.0), (last - begin, 0.0)])
    )
    plan.height -= 0.02
    phrases = []
    for w, h in zip(way.tolist(), half.tolist(), strict=True):
        to = side(w)
        phrases.append(
            [f"turns around to the {to}", f"turns by half a turn to the {to}", f"turns around over the {to} shoulder"]
            if h
            else [f"turns to the {to}", f"turns a quarter turn to the {to}", f"turns to face {to}"]
        )
    return plan, said(draws, phrases)
