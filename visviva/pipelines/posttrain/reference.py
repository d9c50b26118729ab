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
    """Let the networks be the reference within the context, without gradient; after it they are as they were.

    Args:
        networks: by name; with adapters, or without where ``copy`` is given.
        copy: the weights at the start, or None to switch adapters off.
        parameters: trained weights by name, which ``copy`` stands in for.

    Example::

        with reference(backbone.networks(), None, {}):
            wanted = backbone.velocity(x, sigma, condition)
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    with torch.no_grad():
        if copy is not None:
            with copy.applied(parameters):
                yield
            return
        layers = [layer for n in networks.values() for layer in n.modules() if isinstance(layer, BaseTunerLayer)]
        before = [(layer, layer.disable_adapters) for layer in layers]
        asked = [(p, p.requires_grad) for n in networks.values() for p in n.parameters()]
        for network in networks.values():
            network.disable_adapters()
        try:
            yield
        finally:
            for layer, off in before:
                layer.enable_adapters(not off)
            for parameter, gradient in asked:  # switching asks for gradients of every active adapter
                parameter.requires_grad_(gradient)
