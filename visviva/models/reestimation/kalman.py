"""The constant-acceleration Kalman smoother: the classical way to calm detected points, and the rival of re-estimation.

Each coordinate is a state (x, v, a) whose acceleration walks at random: jerk is white noise of the spectral density S. With
``F = [[1, dt, dt^2/2], [0, 1, dt], [0, 0, 1]]`` and ``Q = S [[dt^5/20, dt^4/8, dt^3/6], [dt^4/8, dt^3/3, dt^2/2], [dt^3/6,
dt^2/2, dt]]`` (Bar-Shalom, Li, Kirubarajan 2001, section 6.2.3) a forward filter and the backward pass of Rauch, Tung and
Striebel (1965) give the estimate that has seen all frames.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError

SPEED, ACCELERATION = 3.0, 30.0
"""What is believed before the first frame: standard deviations of velocity [m/s] and acceleration [m/s^2]."""


def smoothed(
    seen: Float[Tensor, "*batch T J C"],
    fps: float,
    noise: float,
    jerk: float,
    confidence: Float[Tensor, "*batch T J"] | None = None,
    gate: float | None = None,
) -> Float[Tensor, "*batch T J C"]:
    """Return the points as the smoother believes them.

    The only loop is over frames, which depend on each other. Differentiable with respect to ``seen``.

    Args:
        seen: detected points, C coordinates each [m, or any unit].
        fps: frames per second.
        noise: standard deviation of a coordinate that is seen with confidence 1 [m].
        jerk: spectral density S of the jerk [m^2/s^5].
        confidence: divides the variance; 0: not seen at all, and predicted.
        gate: a point further than so many standard deviations from its prediction counts less, with the square of how much
            further (never not at all, for then a track that is lost stays lost); None: all count alike.

    Raises:
        InputError: noise, jerk, gate or rate that are not positive, or confidences of another shape or negative.

    Example::

        calm = smoothed(joints, fps=30.0, noise=0.02, jerk=1000.0)
    """
    for name, value in (("noise", noise), ("jerk", jerk), ("frames per second", fps), ("gate", 1.0 if gate is None else gate)):
        if not 0 < value < float("inf"):
            raise InputError(f"{name} of the Kalman smoother is {value}; it must be positive")
    if confidence is None:
        confidence = torch.ones_like(seen[..., 0])
    if confidence.shape != seen.shape[:-1] or bool((confidence < 0).any()):
        raise InputError(f"confidences of the shape {tuple(confidence.shape)} for points {tuple(seen.shape)}; one each, >= 0")
    points, weight = seen.double().movedim(-3, 0), confidence.double().movedim(-2, 0)
    move, diffusion = _model(1 / fps, jerk, points)
    passed = _forward(points, weight, move, diffusion, noise, gate)
    return _backward(*passed, move).movedim(0, -3).to(seen.dtype)


def _model(dt: float, jerk: float, like: Tensor) -> tuple[Tensor, Tensor]:
    move = like.new_tensor([[1, dt, dt**2 / 2], [0, 1, dt], [0, 0, 1]])
    rows = [[dt**5 / 20, dt**4 / 8, dt**3 / 6], [dt**4 / 8, dt**3 / 3, dt**2 / 2], [dt**3 / 6, dt**2 / 2, dt]]
    return move, jerk * like.new_tensor(rows)


def _forward(
    points: Tensor, weight: Tensor, move: Tensor, diffusion: Tensor, noise: float, gate: float | None
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """Filter: predicted and corrected means (.., J, C, 3) and covariances (.., J, 3, 3) of every frame."""
    state = torch.stack([points[0], torch.zeros_like(points[0]), torch.zeros_like(points[0])], -1)
    spread = torch.diag(points.new_tensor([noise**2 + 1.0, SPEED**2, ACCELERATION**2])).expand(*points.shape[1:-1], 3, 3)
    before, before_spread, after, after_spread = [], [], [], []
    for frame, (point, sure) in enumerate(zip(points, weight, strict=True)):
        if frame:
            state, spread = state @ move.T, move @ spread @ move.T + diffusion
        before.append(state)
        before_spread.append(spread)
        missing = point - state[..., 0]
        room = sure * spread[..., 0, 0] + noise**2  # sure times the variance of what is missing
        if gate is not None:
            far = sure * missing.square().mean(-1) / (gate**2 * room)
            sure = sure / far.detach().clamp(min=1)
        gain = (sure / (sure * spread[..., 0, 0] + noise**2))[..., None] * spread[..., :, 0]
        state = state + gain[..., None, :] * missing[..., None]
        spread = spread - gain[..., :, None] * spread[..., 0:1, :]
        after.append(state)
        after_spread.append(spread)
    return before, before_spread, after, after_spread


def _backward(
    before: list[Tensor], before_spread: list[Tensor], after: list[Tensor], after_spread: list[Tensor], move: Tensor
) -> Tensor:
    """Smooth: places (T, .., J, C)."""
    state = after[-1]
    found = [state[..., 0]]
    for frame in range(len(after) - 2, -1, -1):
        gain = torch.linalg.solve(before_spread[frame + 1], move @ after_spread[frame]).mT
        state = after[frame] + (state - before[frame + 1]) @ gain.mT
        found.append(state[..., 0])
    return torch.stack(found[::-1])
