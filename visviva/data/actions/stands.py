"""Actions of one who stands: squat, wave, kick, punch, throw, bow, lunge."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.actions.curves import keyed
from visviva.data.actions.draws import Draws, said, side
from visviva.data.actions.plan import Plan, standing


def sided(left: Tensor, sign: Tensor) -> Float[Tensor, "B T 2"]:
    """Return (B, T) values put on the left where ``sign`` is positive, else on the right; zeros on the other side."""
    return torch.stack([left * (sign > 0)[:, None], left * (sign < 0)[:, None]], -1)


def squat(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Squat and rise, again and again."""
    tempo, depth = draws.tempo, draws.uniform(0.25, 0.48)
    plan = standing(times, draws.size, draws.uniform(0.26, 0.42))
    down, hold, up = draws.uniform(0.75, 0.95) / tempo, draws.uniform(0.05, 0.25) / tempo, draws.uniform(0.7, 0.9) / tempo
    keys: list[tuple[Tensor | float, ...]] = [(0.0, 0.0), (down, 1.0), (down + hold, 1.0), (down + hold + up, 0.0)]
    low = keyed(times, draws.starts(), down + hold + up + draws.uniform(0.15, 0.4) / tempo, keys)
    plan.height = -low * depth[:, None]
    plan.pitch += low * 1.1 * depth[:, None]
    plan.spine[..., 0] += low * 0.7 * depth[:, None]
    plan.neck[..., 0] -= low * 0.9 * depth[:, None]
    plan.arms[..., 0] += (low * draws.uniform(0.9, 1.5)[:, None])[..., None]
    plan.turn += 0.2 * torch.tensor([1.0, -1.0], dtype=torch.float64)
    plan.splay = plan.turn + 0.1 * torch.tensor([1.0, -1.0], dtype=torch.float64)
    phrases = [["squats down and stands up", "does squats", "is squatting", "bends the knees and rises again"]] * len(depth)
    return plan, said(draws, phrases, [["deep" if d > 0.4 else "a little" if d < 0.31 else ""] for d in depth.tolist()])


def wave(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Raise a hand and wave."""
    tempo, sign = draws.tempo, draws.sign(0.35)
    plan = standing(times, draws.size, draws.uniform(0.16, 0.3))
    rise, beat, start = draws.uniform(0.5, 0.7) / tempo, draws.uniform(0.5, 0.65) / tempo, draws.starts(0.0, 0.3)
    up = keyed(times, start, 0 * rise + 1e3, [(0.0, 0.0), (rise, 1.0)])
    on = keyed(times, start + 0.7 * rise, 0 * rise + 1e3, [(0.0, 0.0), (rise, 1.0)])
    swing = on * (2 * math.pi * (times - start[:, None]) / beat[:, None]).sin() * draws.uniform(0.25, 0.5)[:, None]
    high = draws.uniform(1.0, 1.9)
    plan.arms[..., 0] += sided(up * 0.35, sign)
    plan.arms[..., 1] += sided(up * high[:, None], sign)
    plan.arms[..., 2] -= sided(up * 1.5, sign)
    plan.arms[..., 3] += sided(up * 1.0 + swing, sign)
    plan.spine[..., 1] -= 0.04 * up * sign[:, None]
    phrases = []
    for s in sign.tolist():
        hand = side(s)
        phrases.append([f"waves with the {hand} hand", f"is waving the {hand} arm", f"raises the {hand} hand and waves"])
    return plan, said(draws, phrases, [["high above the head" if h > 1.6 else ""] for h in high.tolist()])


def kick(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Kick forward with one leg."""
    tempo, sign, reach = draws.tempo, draws.sign(0.35), draws.uniform(0.2, 0.75)
    plan = standing(times, draws.size, draws.uniform(0.16, 0.24))
    lift = draws.uniform(0.45, 0.6) / tempo
    swing, fall = draws.uniform(0.26, 0.34) / tempo, draws.uniform(0.5, 0.65) / tempo
    slowest = 0.52 * (0.15 + reach).sqrt()  # a leg that is stopped faster than this lifts the body off the floor
    strike, fall = lift + swing.maximum(slowest), fall.maximum(slowest)
    end, start = strike + fall, draws.starts(0.35, 0.7)
    zero, shifts = 0 * lift, draws.uniform(0.4, 0.5)
    every = end + 2 * shifts + draws.uniform(0.0, 0.3)
    free = keyed(times, start, every, [(-shifts, zero), (zero, zero + 1), (end, zero + 1), (end + shifts - 0.05, zero)])
    plan.load = 0.5 - 0.5 * sided(free, sign) + 0.5 * sided(free, -sign)
    far = (0.7**2 - (0.69 - reach) ** 2).sqrt()  # the leg is nearly stretched
    ahead = keyed(times, start, every, [(zero, zero), (lift, zero - 0.35), (strike, far), (end, zero)])
    high = keyed(times, start, every, [(zero, zero), (lift, zero + 0.2), (strike, 0.15 + reach), (end, zero)])
    point = keyed(times, start, every, [(zero, zero), (lift, zero + 0.9), (strike, zero - 0.5 * reach), (end, zero)])
    plan.place[..., 0] += sided(ahead, sign)
    plan.lift, plan.point = sided(high, sign), sided(point, sign)
    plan.height = -0.03 - 0.02 * free
    plan.pitch = -0.25 * ahead * reach[:, None]
    plan.arms[..., 0] += sided(-0.6 * ahead, sign) + sided(0.7 * ahead, -sign)
    plan.arms[..., 1] += 0.25 * free[..., None]
    phrases = []
    for s in sign.tolist():
        leg = side(s)
        phrases.append([f"kicks with the {leg} leg", f"kicks forward with the {leg} foot", f"does a kick with the {leg} leg"])
    return plan, said(draws, phrases, [["high" if r > 0.55 else "low" if r < 0.32 else ""] for r in reach.tolist()])


def punch(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Punch forward with one fist from a guard."""
    tempo, sign = draws.tempo, draws.sign(0.35)
    plan = standing(times, draws.size, draws.uniform(0.26, 0.36), -sign * draws.uniform(0.2, 0.34))
    out, back = draws.uniform(0.3, 0.38) / tempo, draws.uniform(0.4, 0.5) / tempo
    every = out + back + draws.uniform(0.1, 0.4) / tempo
    hit = keyed(times, draws.starts(), every, [(0.0, 0.0), (out, 1.0), (out + back, 0.0)])
    guard = torch.tensor([0.5, 0.2, -0.2, 2.1], dtype=torch.float64)
    plan.arms = plan.arms * 0 + guard
    high = draws.uniform(-0.1, 0.35)
    plan.arms[..., 0] += sided(hit * (0.95 + high)[:, None], sign)
    plan.arms[..., 3] -= sided(hit * 1.85, sign)
    plan.spine[..., 2] -= 0.45 * sign[:, None] * (hit - 0.3)
    plan.yaw = -0.22 * sign[:, None] * (hit - 0.3)
    plan.spine[..., 0] += 0.12
    plan.height = -0.06 - 0.01 * hit
    plan.load = 0.5 + 0.12 * (sided(hit, -sign) - sided(hit, sign))
    phrases = []
    for s in sign.tolist():
        arm = side(s)
        phrases.append([f"punches with the {arm} hand", f"throws a punch with the {arm} fist", f"boxes with the {arm} arm"])
    return plan, said(draws, phrases, [["at head height" if h > 0.22 else ""] for h in high.tolist()])


def throw(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Throw something overhand, one foot before the other."""
    tempo, sign = draws.tempo, draws.sign(0.3)
    plan = standing(times, draws.size, draws.uniform(0.22, 0.32), -sign * draws.uniform(0.35, 0.5))
    wind, fling, rest = draws.uniform(0.6, 0.75) / tempo, draws.uniform(0.28, 0.36) / tempo, draws.uniform(0.6, 0.8) / tempo
    start, end = draws.starts(), wind + fling + rest
    every = end + draws.uniform(0.3, 0.6) / tempo
    back = keyed(times, start, every, [(0.0, 0.0), (wind, 1.0), (wind + fling, 0.0)])
    gone = keyed(times, start, every, [(wind, 0.0), (wind + fling, 1.0), (end, 0.0)])
    plan.arms[..., 1] += sided(1.25 * back + 0.5 * gone, sign)
    plan.arms[..., 0] += sided(-0.35 * back + 1.1 * gone, sign) + sided(0.7 * back, -sign)
    plan.arms[..., 2] -= sided(1.5 * back, sign)
    plan.arms[..., 3] += sided(1.2 * back - 0.1 * gone, sign)
    plan.spine[..., 2] += sign[:, None] * (0.4 * back - 0.35 * gone)
    plan.yaw = sign[:, None] * (0.3 * back - 0.2 * gone)
    plan.spine[..., 0] += 0.3 * gone - 0.1 * back
    plan.load = 0.5 + 0.3 * (sided(back - gone, sign) - sided(back - gone, -sign))
    plan.height -= 0.07
    phrases = []
    for s in sign.tolist():
        arm = side(s)
        phrases.append([f"throws something with the {arm} hand", f"throws a ball overhand with the {arm} arm"])
    return plan, said(draws, phrases)


def bow(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Bow and stand up straight again."""
    tempo, angle = draws.tempo, draws.uniform(0.5, 1.35)
    plan = standing(times, draws.size, draws.uniform(0.12, 0.24))
    down, hold, up = draws.uniform(0.8, 1.0) / tempo, draws.uniform(0.2, 0.5) / tempo, draws.uniform(0.8, 1.0) / tempo
    every = down + hold + up + draws.uniform(0.3, 0.6) / tempo
    low = keyed(times, draws.starts(), every, [(0.0, 0.0), (down, 1.0), (down + hold, 1.0), (down + hold + up, 0.0)])
    bent = low * angle[:, None]
    plan.pitch = 0.6 * bent
    plan.spine[..., 0] += 0.4 * bent
    plan.neck[..., 0] += 0.1 * bent
    plan.height = -0.015 * bent
    plan.arms[..., 0] += (0.35 * bent)[..., None]
    phrases = [["bows", "takes a bow", "bends forward and straightens up", "bows politely"]] * len(angle)
    return plan, said(draws, phrases, [["deeply" if a > 1.05 else "slightly" if a < 0.7 else ""] for a in angle.tolist()])


def lunge(times: Float[Tensor, " T"], draws: Draws) -> tuple[Plan, list[str]]:
    """Step far forward with one leg, sink, and step back."""
    tempo, sign = draws.tempo, draws.sign()
    plan = standing(times, draws.size, draws.uniform(0.18, 0.26))
    far, depth = draws.uniform(0.45, 0.65), draws.uniform(0.1, 0.24)
    go, hold = draws.uniform(0.6, 0.7) / tempo, draws.uniform(0.7, 0.9) / tempo
    home, end = go + hold, 2 * go + hold
    start, zero = draws.starts(0.4, 0.7), 0 * far
    every = end + draws.uniform(0.8, 1.0)
    ahead = keyed(times, start, every, [(zero, zero), (go, far), (home, far), (end, zero)])
    keys = [(zero, zero), (go / 2, zero + 1), (go, zero), (home, zero), ((home + end) / 2, zero + 1), (end, zero)]
    plan.place[..., 0] += sided(ahead, sign)
    plan.lift = sided(0.09 * keyed(times, start, every, keys), sign)
    shifts = zero + 0.38
    give = 0.24 / tempo
    keys = [(-shifts, zero), (zero, zero + 1), (go, zero + 1), (go + give, zero - 0.3), (home - give, zero - 0.3)]
    free = keyed(times, start, every, [*keys, (home, zero + 1), (end, zero + 1), (end + shifts, zero)])
    plan.load = 0.5 - 0.5 * sided(free, sign) + 0.5 * sided(free, -sign)
    sunk = keyed(times, start, every, [(0.3 * go, zero), (go + 0.45 * hold, zero + 1), (home + 0.6 * go, zero)])
    plan.height = -0.03 - depth[:, None] * sunk
    heel = keyed(times, start, every, [(0.4 * go, zero), (go, zero + 1), (home, zero + 1), (home + 0.6 * go, zero)])
    plan.point = sided(0.75 * heel, -sign)
    plan.pitch = 0.1 * sunk
    plan.arms[..., 3] += (0.9 * sunk)[..., None]
    phrases = []
    for s in sign.tolist():
        leg = side(s)
        phrases.append(
            [f"lunges forward with the {leg} leg", f"does a lunge on the {leg} leg", f"steps forward into a {leg} lunge"]
        )
    return plan, said(draws, phrases, [["deep" if d > 0.19 else ""] for d in depth.tolist()])
