"""Analytic re-estimation: the motion nearest to what was seen that a body with true masses can make on its ground.

No network and no learned number: configurations of a rigid body are moved until they minimise, over all frames,

    sum rho(|x_j - seen_j|^2 / sigma_j^2)          the joints that were seen, outliers tamed (pseudo-Huber)
    + dt / S sum |jerk of x_j|^2                    smooth over windows: the prior of the Kalman smoother
    + dt / el^2 sum violation^2                     Euler-Lagrange: root rows of inverse dynamics that no ground force explains
    + dt / slip^2 sum |velocity of standing feet|^2 feet that stand do not move
    + dt / sink^2 sum |feet below the floor|^2      and are not below it

With the first two terms alone this is the maximum a posteriori of `visviva.models.reestimation.kalman` on rigid bones. The
ground's forces are those of `visviva.physics.dynamics.ground_reaction`: because they minimise what is left, the gradient of
what is left is that with the forces held (Danskin's theorem), and the solver need not be differentiated.
Reconstructed after the card (motion, section 13): the weights are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.bodies import Body
from visviva.physics.dynamics import Points, differentiate, integrate, move, place
from visviva.physics.dynamics.ground import contact_forces, gyration
from visviva.physics.dynamics.inverse import needed
from visviva.physics.dynamics.layout import layout_of
from visviva.physics.dynamics.motion import cross

TAU = 0.05
"""Time over which a violation, a slip or a sinking foot is one observation [s]: makes sums independent of the frame rate."""


@dataclass(frozen=True)
class Priors:
    """What is believed of a motion; standard deviations, each the size that costs as much as one standard deviation of noise.

    Attributes:
        jerk: spectral density S of each joint's jerk [m^2/s^5].
        violation: of Euler-Lagrange [body weights]; infinite: dynamics is not asked for.
        slip: velocity of a standing foot [m/s]; ``sink``: depth of a foot below the floor [m].
        bone: length of a bone against that of the body that is given, a share; 0: bones keep their lengths.
        outlier: distance, in standard deviations of the noise, from which on a joint pulls no harder.
        friction: of the ground.
    """

    jerk: float = 300.0
    violation: float = 0.1
    slip: float = 0.1
    sink: float = 0.005
    bone: float = 0.1
    outlier: float = 2.0
    friction: float = 0.8


@dataclass(frozen=True)
class Ground:
    """What stands where.

    Attributes:
        points: of the body that may touch the ground, P.
        contact: which do, (*batch, T, P).
        feet: joints that must not slip or sink, F indices.
        standing: which of them stand, (*batch, T, F).
        floor: height of the floor under a foot joint at rest, (F,) or a number [m]; z up.
    """

    points: Points
    contact: Tensor
    feet: tuple[int, ...]
    standing: Tensor
    floor: Tensor | float


@dataclass(frozen=True)
class Estimate:
    """A re-estimated motion: configurations (*batch, T, nq), joints (*batch, T, n, 3) [m], the body with the bones that were
    found, cost before and after."""

    body: Body
    q: Tensor
    joints: Tensor
    before: dict[str, float]
    after: dict[str, float]


def cost(
    body: Body,
    q: Float[Tensor, "*batch T nq"],
    seen: Float[Tensor, "*batch T n 3"],
    spread: Float[Tensor, "..."],
    fps: float,
    ground: Ground,
    priors: Priors,
) -> dict[str, Tensor]:
    """Return the terms of the objective, each summed over everything. Differentiable with respect to q.

    Args:
        body: with a free root.
        q: configurations.
        seen: the joints as detected; not looked at where ``spread`` is infinite.
        spread: standard deviation of their coordinates, of a shape that broadcasts to that of ``seen`` [m].
        fps: frames per second.
        ground, priors: see there.

    Example::

        terms = cost(body, q, joints, torch.tensor(0.02), 30.0, ground, Priors())
        sum(terms.values()).backward()
    """
    joints = place(body, q).position
    away = (torch.where(spread.isfinite(), joints - seen, 0.0) / spread).square().sum(-1)
    bound = priors.outlier**2
    terms = {"seen": (2 * bound * ((1 + away / bound).sqrt() - 1)).sum()}
    terms["jerk"] = (joints.diff(n=3, dim=-3) * fps**3).square().sum() / (fps * priors.jerk)
    feet, often = joints[..., list(ground.feet), :], 1 / (fps * TAU)
    both = ground.standing[..., 1:, :] & ground.standing[..., :-1, :]
    slip = (feet.diff(dim=-3) * fps).square().sum(-1) * both
    terms["slip"] = often * slip.sum() / priors.slip**2 if math.isfinite(priors.slip) else slip.sum() * 0
    depth = (ground.floor - feet[..., 2]).clamp(min=0)
    terms["sink"] = often * depth.square().sum() / priors.sink**2
    if math.isfinite(priors.violation):
        terms["violation"] = often * unexplained(body, q, fps, ground, priors.friction).square().sum() / priors.violation**2
    return terms


def unexplained(
    body: Body, q: Float[Tensor, "*batch T nq"], fps: float, ground: Ground, friction: float = 0.8
) -> Float[Tensor, "*batch M 6"]:
    """Return force and moment about the centre of mass that no ground gives, in body weights (moments over the radius of
    gyration).

    Three-frame derivatives, M = T - 2 frames. The gradient holds the ground's forces, which is exact where they are optimal.
    """
    moved = move(body, *differentiate(body, q, fps, 3))
    force, moment = needed(body, moved)
    centre = moved.pose.centre_of_mass(body)
    radius = gyration(body, moved.pose, centre).detach()[..., None]
    about = moment + cross(moved.pose.position - centre[..., None, :], force)
    weight = body.mass.sum() * body.down.norm()
    wanted = torch.cat([force.sum(-2), about.sum(-2) / radius], -1) / weight
    arm = (ground.points.positions(moved.pose) - centre[..., None, :]) / radius[..., None]
    with torch.no_grad():
        up = -body.down / body.down.norm()
        given = contact_forces(wanted, arm, ground.contact[..., 1:-1, :], up, friction, SOLVE)
    return wanted - torch.cat([given.sum(-2), cross(arm, given).sum(-2)], -1)


SOLVE = 40
"""Steps of the ground's solver at each evaluation."""


def reestimate(
    body: Body,
    start: Float[Tensor, "*batch T nq"],
    seen: Float[Tensor, "*batch T n 3"],
    spread: Float[Tensor, "..."],
    fps: float,
    ground: Ground,
    priors: Priors | None = None,
    steps: int = 60,
) -> Estimate:
    """Return the motion that minimises `cost`, from ``start`` on, by L-BFGS in float64.

    Args:
        body: with a free root; links that carry mass.
        start: configurations to begin with, those of smoothed joints.
        seen, spread, fps, ground, priors: of `cost`.
        steps: of L-BFGS at most.

    Raises:
        InputError: fewer than 4 frames, or starts that are not finite.

    Example::

        found = reestimate(body, start, joints, torch.tensor(0.02), 30.0, ground)
        found.joints  # (T, n, 3)
    """
    priors = priors or Priors()
    if start.shape[-2] < 4:
        raise InputError(f"{start.shape[-2]} frames; re-estimation needs 4 or more")
    if not bool(start.isfinite().all()):
        raise InputError("the motion to start from is not finite")
    body, start, seen, spread = body.to(torch.float64), start.double(), seen.double(), spread.double()
    change = torch.zeros(*start.shape[:-1], body.nv, dtype=torch.float64, device=start.device, requires_grad=True)
    factor, scale, stretch = _conditioner(body, start, spread, fps, priors)
    longer = torch.zeros(len(body), 1, dtype=torch.float64, device=start.device, requires_grad=priors.bone > 0)
    free = [change, longer] if priors.bone > 0 else [change]
    rule = torch.optim.LBFGS(free, max_iter=steps, history_size=20, line_search_fn="strong_wolfe", tolerance_change=1e-9)

    def now() -> tuple[Body, Tensor]:
        own = replace(body, offset=body.offset * (stretch * longer).exp()) if priors.bone > 0 else body
        step = torch.linalg.solve_triangular(factor, change * scale, upper=True)
        return own, integrate(body, start, step, 1.0)

    def terms() -> dict[str, Tensor]:
        found = cost(*now(), seen, spread, fps, ground, priors)
        return found | {"bone": (stretch * longer / priors.bone).square().sum()} if priors.bone > 0 else found

    def closure() -> float:
        rule.zero_grad()
        total = torch.stack(list(terms().values())).sum()
        total.backward()
        return float(total.detach())

    with torch.no_grad():
        before = {name: float(value) for name, value in terms().items()}
    rule.step(closure)
    with torch.no_grad():
        after = {name: float(value) for name, value in terms().items()}
        own, q = now()
    return Estimate(own, q, place(own, q).position, before, after)


def _conditioner(body: Body, q: Tensor, spread: Tensor, fps: float, priors: Priors) -> tuple[Tensor, Tensor, Tensor]:
    """What makes the objective round: an upper factor C over time with ``C^T C = 1 + (sigma^2 fps^5 / S) D3^T D3``, as the
    first two terms have it; a scale per degree of freedom, the noise over the root of all squared levers it moves; one per
    bone."""
    noise = float(spread[spread.isfinite()].square().mean().sqrt())
    third = torch.eye(q.shape[-2], dtype=q.dtype, device=q.device).diff(n=3, dim=0)
    whole = torch.eye(q.shape[-2], dtype=q.dtype, device=q.device) + noise**2 * fps**5 / priors.jerk * third.T @ third
    layout, joints = layout_of(body), place(body, q).position
    apart = (joints[..., None, :, :] - joints[..., :, None, :]).square().sum(-1).flatten(0, -3).mean(0)
    below = torch.zeros_like(apart)
    for link, parent in enumerate(body.parents):
        below[link, link] = 1.0
        while parent >= 0:
            below[parent, link] = 1.0
            parent = body.parents[parent]
    lever = torch.where(layout.angular, (below * apart).sum(-1)[layout.link].clamp(min=LEAST**2), below.sum(-1)[layout.link])
    pulled = q[..., 0].numel() * below.sum(-1) * body.offset.square().sum(-1) / noise**2
    return torch.linalg.cholesky(whole).mT, noise / lever.sqrt(), (pulled + max(priors.bone, 1e-3) ** -2).rsqrt()[:, None]


LEAST = 0.05
"""Shortest lever that a joint is taken to move [m]."""
