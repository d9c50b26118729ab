"""Mean inputs and output gradients of a network's linear and convolution layers, taken by hooks during forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from visviva.errors import InputError

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class Means:
    """Sums over the backward passes since the last step: ``a`` (inputs + 1 if bias,), ``g`` (outputs,), passes counted."""

    a: Tensor
    g: Tensor
    count: Tensor


@dataclass
class Layer:
    """One layer: its module, its name, and the hook that fills ``sums``."""

    name: str
    module: Any
    clamp: float = 100.0
    taking: bool = True
    scale: float | Callable[[], float] = 1.0
    sums: Means | None = None
    handle: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.handle = self.module.register_forward_hook(self._seen, with_kwargs=True)

    @property
    def weight(self) -> Tensor:
        """The layer's weights."""
        return self.module.weight

    @property
    def bias(self) -> Tensor | None:
        """The layer's bias, where it has one that is trained."""
        bias = self.module.bias
        return bias if bias is not None and bias.requires_grad else None

    @property
    def sizes(self) -> tuple[int, int]:
        """(outputs, inputs), inputs per patch of a convolution and with one more for a bias."""
        return self.weight.shape[0], self.weight[0].numel() + (self.bias is not None)

    def _seen(self, module: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any) -> None:
        """Note the mean input; the gradient of the output completes the pair (recomputed forwards count once)."""
        if not (self.taking and torch.is_grad_enabled() and isinstance(output, Tensor) and output.requires_grad):
            return
        with torch.no_grad():
            wide = torch.promote_types(self.weight.dtype, torch.float32)
            a = mean_input(module, self._input(inputs, named).detach().to(wide).clamp(-self.clamp, self.clamp))
            a = torch.cat([a, a.new_ones(1)]) if self.bias is not None else a
        output.register_hook(lambda g: self._add(a, g))

    def _input(self, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
        """Return what the layer was given, first or as ``input=``, which is what torch's own layers call it."""
        found = inputs[0] if inputs else named.get("input")
        if not isinstance(found, Tensor):
            raise InputError(
                f"MKOR cannot tell what layer {self.name} takes in; it was called with {', '.join(named) or 'nothing'}; "
                "pass the input first, or as input=..."
            )
        return found

    @torch.no_grad()
    def _add(self, a: Tensor, gradient: Tensor) -> None:
        samples = gradient.shape[0] if gradient.ndim > 1 else 1
        scale = float(self.scale() if callable(self.scale) else self.scale)
        g = (gradient.detach().to(a.dtype) * (samples / scale)).clamp(-self.clamp, self.clamp)
        g = g.mean([d for d in range(g.ndim) if d != channel_dim(self.module, g.ndim)]) if g.ndim > 1 else g
        one = torch.ones((), dtype=a.dtype, device=a.device)
        if self.sums is None:
            self.sums = Means(a, g, one)
        else:
            self.sums = Means(self.sums.a + a, self.sums.g + g, self.sums.count + one)

    def identities(self) -> list[Tensor]:
        """Return the identity of either size, in float32 at least."""
        wide, device = torch.promote_types(self.weight.dtype, torch.float32), self.weight.device
        return [torch.eye(n, dtype=wide, device=device) for n in self.sizes]

    def taken(self) -> Means:
        """Return the sums, zeros where no backward pass came by."""
        if self.sums is not None:
            return self.sums
        outputs, inputs = self.sizes
        zeros = torch.zeros(outputs + inputs + 1, dtype=torch.promote_types(self.weight.dtype, torch.float32))
        zeros = zeros.to(self.weight.device)
        return Means(zeros[:inputs], zeros[inputs:-1], zeros[-1])


def channel_dim(module: Any, ndim: int) -> int:
    """Return which dimension of a layer's output holds its channels."""
    if isinstance(module, nn.Linear):
        return ndim - 1
    spatial = module.weight.ndim - 2
    return ndim - spatial - 1


def mean_input(module: nn.Module, x: Tensor) -> Float[Tensor, " inputs"]:
    """Return the mean of what a layer's weights are multiplied with, over samples and places: inputs, or patches (convolution).

    The mean patch is the mean over the batch first, then dimension by dimension over the places that each tap of the kernel
    visits, so that no patch is ever copied.

    Example::

        mean_input(nn.Conv2d(3, 8, 3, padding=1), torch.randn(4, 3, 16, 16)).shape  # (27,)
    """
    if isinstance(module, nn.Linear):
        return x.reshape(-1, x.shape[-1]).mean(0)
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        raise TypeError(type(module))
    x = x.reshape(-1, *x.shape[-len(module.kernel_size) - 1 :]).mean(0, keepdim=True)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = nn.functional.pad(x, module._reversed_padding_repeated_twice, mode=mode)[0]
    for size, step, gap in zip(module.kernel_size, module.stride, module.dilation, strict=True):
        places = (x.shape[1] - gap * (size - 1) - 1) // step + 1
        taps = [x[:, k * gap : k * gap + (places - 1) * step + 1 : step].mean(1) for k in range(size)]
        x = torch.stack(taps, -1)  # the reduced dimension moves to the end, the next one comes second
    return x.reshape(-1)


def _trained(module: Any, known: set[int]) -> bool:
    fits = isinstance(module, LAYERS) and getattr(module, "groups", 1) == 1
    return fits and id(module.weight) in known and module.weight.requires_grad


def layers_of(model: nn.Module, backend: torch.optim.Optimizer, clamp: float, max_size: int) -> list[Layer]:
    """Hook and return the layers whose weights the optimizer trains: linear ones, and convolutions without groups."""
    known = {id(p) for group in backend.param_groups for p in group["params"]}
    found = [Layer(name, module, clamp) for name, module in model.named_modules() if _trained(module, known)]
    kept = [layer for layer in found if max(layer.sizes) <= max_size]
    for layer in found:
        if layer not in kept:
            layer.handle.remove()
    if not kept:
        raise InputError(
            f"MKOR found no linear or convolution layer (at most {max_size} inputs and outputs) whose weights the backend "
            "trains; build the backend from this model's parameters"
        )
    return kept


def over_processes(means: list[Means]) -> list[Means]:
    """Sum the means of all processes, in one message per dtype and device."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return means
    summed = list(means)
    kinds = {(m.a.dtype, m.a.device) for m in means}
    for kind in sorted(kinds, key=str):
        own = [i for i, m in enumerate(means) if (m.a.dtype, m.a.device) == kind]
        flat = torch.cat([torch.cat([means[i].a, means[i].g, means[i].count[None]]) for i in own])
        torch.distributed.all_reduce(flat)
        for i, piece in zip(own, flat.split([len(means[i].a) + len(means[i].g) + 1 for i in own]), strict=True):
            size = len(means[i].a)
            summed[i] = Means(piece[:size], piece[size:-1], piece[-1])
    return summed
