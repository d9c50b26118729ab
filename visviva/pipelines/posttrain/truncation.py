"""How many of the last sampler steps carry gradient in an update: always K, or a number drawn for each.

AlignProp (Prabhudesai et al., arXiv 2310.03739) backpropagates through a random number of last steps, against collapse: it
stops the gradient at the network's output in the steps before a random cut. Weights act through the network alone, so theirs
is exactly the gradient of the steps after the cut (`pytest tests/models/test_reward_gradients.py -k alignprop`), and the steps
before it need no graph.
"""

from __future__ import annotations

from typing import Literal

import torch

MEAN, SPREAD = 0.84, 0.10
"""Of the cut, as shares of the sampler's steps: AlignProp's released settings draw it from N(42, 5) of 50 steps."""


def depth(kind: Literal["fixed", "uniform", "gaussian"], most: int, steps: int, seed: int) -> int:
    """Return the number of last steps with gradient, between 1 and ``most``.

    Args:
        kind: ``fixed``: ``most``. ``uniform``: each number alike. ``gaussian``: steps - cut, the cut being the whole part of a
            draw from N(0.84 steps, (0.10 steps)^2), drawn again until it fits (AlignProp's released code).
        most: the largest.
        steps: steps of the sampler.
        seed: of the draw.

    Example::

        depth("gaussian", 50, 50, seed=0)  # 8 on average
    """
    generator = torch.Generator().manual_seed(seed)
    if kind == "fixed":
        return most
    if kind == "uniform":
        return int(torch.randint(1, most + 1, (), generator=generator))
    while True:
        cut = int(steps * (MEAN + SPREAD * float(torch.randn((), generator=generator))))
        if 1 <= steps - cut <= most:
            return steps - cut
