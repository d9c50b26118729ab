"""The symplectic shear of momentum attention: queries and keys plus gamma times their difference over time.

    p_t = q_t - q_{t-1}        q^_t = q_t + gamma p_t = (1 + gamma) q_t - gamma q_{t-1}

On (q, p) this is the shear [[1, gamma], [0, 1]], which has determinant 1 and keeps the symplectic form; along time it is a
high-pass filter with response ``H(w) = 1 + gamma (1 - exp(-i w))``: gain 1 at rest, 1 + 2 gamma at the Nyquist frequency.

Source: Momentum Attention (arXiv 2602.04902): operator, filter duality, placement after RoPE and depth law are the paper's.
The boundary p_0 = 0, the difference over frames of a video and the closed forms below are ours.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from visviva.errors import InputError

DIFFERENCES = ("backward", "central", "forward")


def shear(
    x: Float[Tensor, "B H S D"],
    steps: int,
    gamma: float | Float[Tensor, " H"],
    difference: str = "backward",
    zero_first: int = 1,
    first: int = 0,
    count: int | None = None,
) -> Float[Tensor, "B H S D"]:
    """Return ``x + gamma p``, with p the difference between steps at the same place; differentiable.

    Args:
        x: queries or keys, tokens ordered with time slowest: S = steps x places.
        steps: frames of a video's tokens; S for a text, whose every token is a step.
        gamma: one number, or one for each head; 0 returns x itself, bit by bit.
        difference: ``backward`` (the paper, x_t - x_{t-1}), ``forward`` or ``central``; causal attention needs ``backward``.
        zero_first: leading steps whose difference is taken as 0: 1, or 2 where the first latent frame holds one picture
            and all others several. The last step has none in ``forward`` and ``central``.
        first, count: the tokens that are sheared, all from the first on; others (a text before or after) stay.

    The difference is taken in float32, for bfloat16 neighbours differ in their last bits; the result has the dtype of x.
    ``x_t + gamma (x_t - x_{t-1})`` is a linear interpolation beyond x_t: one pass over x, which is float32 within, and one more
    under autograd. Half precision with a strength for each head, or ``central``, takes float32 copies.

    Raises:
        InputError: S that is no multiple of steps, an unknown difference, zero_first below 1 or of all of several steps.

    Example::

        shear(query, steps=21, gamma=0.5)  # (B, heads, 21 * places, D)
    """
    if difference not in DIFFERENCES:
        raise InputError(f"difference {difference!r} is not known; use one of {', '.join(DIFFERENCES)}")
    count = x.shape[2] - first if count is None else count
    if first < 0 or count < 0 or first + count > x.shape[2]:
        raise InputError(f"{count} tokens from {first} on are not within {x.shape[2]}; give tokens that there are")
    if steps < 1 or count % steps:
        raise InputError(f"{count} tokens are not {steps} steps of equally many; give the steps of these tokens")
    if zero_first < 1:
        raise InputError(f"zero_first {zero_first}; the first step has no predecessor, give 1 or more")
    if 1 < steps <= zero_first:
        raise InputError(f"zero_first {zero_first} of {steps} steps leaves no difference; give less, or longer clips")
    if not isinstance(gamma, Tensor) and gamma == 0:
        return x
    half = x.dtype in (torch.bfloat16, torch.float16) and (isinstance(gamma, Tensor) or difference == "central")
    wide, places = x.float() if half else x, count // steps
    start = first + places * (zero_first if difference != "forward" else zero_first - 1)
    stop = first + count - (places if difference != "backward" else 0)
    before, here, after = (wide[:, :, start + apart : stop + apart] for apart in (-places, 0, places))
    strength: Any = gamma.to(wide).view(-1, 1, 1) if isinstance(gamma, Tensor) else gamma
    found = torch.empty_like(wide)
    found[:, :, :start], found[:, :, stop:] = wide[:, :, :start], wide[:, :, stop:]
    if difference == "central":
        found[:, :, start:stop] = here + strength / 2 * (after - before)
        return found.to(x.dtype)
    other, weight = (before, -strength) if difference == "backward" else (after, strength)
    if torch.is_grad_enabled():
        found[:, :, start:stop] = torch.lerp(here, other, weight)
    else:
        torch.lerp(here, other, weight, out=found[:, :, start:stop])
    return found.to(x.dtype)


def unshear(x: Float[Tensor, "B H S D"], steps: int, gamma: float) -> Float[Tensor, "B H S D"]:
    """Undo a backward `shear`, ``q_t = (q^_t + gamma q_{t-1}) / (1 + gamma)``; stable, its pole is gamma / (1 + gamma) < 1."""
    if gamma < 0:
        raise InputError(f"gamma {gamma}; the inverse is stable for gamma of 0 and more")
    seen = x.unflatten(2, (steps, -1))
    found = [seen[:, :, 0]]
    for step in range(1, steps):
        found.append((seen[:, :, step] + gamma * found[-1]) / (1 + gamma))
    return torch.stack(found, 2).flatten(2, 3)


def response(omega: Float[Tensor, " n"], gamma: float) -> Complex[Tensor, " n"]:
    """Return ``H(w) = 1 + gamma (1 - exp(-i w))`` of the backward shear; w in radians per step."""
    return 1 + gamma * (1 - torch.exp(-1j * omega))


def gain(omega: Float[Tensor, " n"], gamma: float) -> Float[Tensor, " n"]:
    """Return ``|H(w)| = sqrt(1 + 2 gamma (1 + gamma) (1 - cos w))``: 1 at rest, 1 + 2 gamma at w = pi."""
    return (1 + 2 * gamma * (1 + gamma) * (1 - omega.cos())).sqrt()


def depth_law(layers: int) -> float:
    """Return the paper's gamma for a text model of so many layers, ``4.17 layers^-0.74``.

    The paper's own fit; it does not hold for one layer of our associative recall, which is best near 0.5 (`docs/papers.md`).
    """
    if layers < 1:
        raise InputError(f"{layers} layers; give 1 or more")
    return 4.17 * layers**-0.74
