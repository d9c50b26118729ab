"""The frozen reference that a policy is held to: the same networks with their adapters switched off, no second copy.

LoRA-Switch of PhyGDPO (arXiv 2512.24551): ``Y = X (W + s (alpha / r) B A)^T``, s = 0 for the reference, 1 for the policy.
Where all weights are trained there is nothing to switch off, and learned strengths of momentum attention are no adapters: a
copy of what is trained is swapped in, in place, so a graph made before must recompute what it needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from visviva.optim.teacher import TeacherEMA


@contextmanager
def reference(networks: Mapping[str, Any], copy: TeacherEMA | None, parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the networks be the reference within the context, without gradient.

    Args:
        networks: by name; with adapters, or without where ``copy`` is given.
        copy: the weights at the start, or None to switch adapters off.
        parameters: trained weights by name, which ``copy`` stands in for.

    Example::

        with reference(backbone.networks(), None, {}):
            wanted = backbone.velocity(x, sigma, condition)
    """
    with torch.no_grad():
        if copy is not None:
            with copy.applied(parameters):
                yield
            return
        for network in networks.values():
            network.disable_adapters()
        try:
            yield
        finally:
            for network in networks.values():
                network.enable_adapters()
