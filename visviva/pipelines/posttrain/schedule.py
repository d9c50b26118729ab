"""The learning rate of an update: a pure function, so that resuming needs no scheduler state."""

from __future__ import annotations

import math

from visviva.configs.posttrain import Optimizer


def learning_rate(settings: Optimizer, update: int, max_steps: int) -> float:
    """Return the rate of update number ``update`` (from 0): linear warm-up, then constant, or linear or cosine down to 0.

    >>> learning_rate(Optimizer(lr=1.0, warmup=4), 1, 100)
    0.5
    """
    if update < settings.warmup:
        return settings.lr * (update + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.lr
    done = (update - settings.warmup) / max(1, max_steps - settings.warmup)
    if settings.schedule == "linear":
        return settings.lr * (1.0 - done)
    return settings.lr * (1.0 + math.cos(math.pi * done)) / 2.0
