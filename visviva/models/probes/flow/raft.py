"""RAFT (Teed and Deng, arXiv 2003.12039) in plain torch, with the parameter names and shapes of torchvision's public weights.

Both frames' features at 1/8 resolution are correlated all pairs; a recurrent unit looks the correlation up around the current
flow and adds to it, a dozen times; the last flow is brought to full resolution by a learnt convex combination (large) or
bilinearly (small). Details that decide whether public weights give the published flow: products are divided by the square root
of the channels, the lookup's x offset is the slow index, sampling is bilinear with zeros outside, the state starts as tanh and
the context as relu of the two parts of the context features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, unfold
from torch.utils.checkpoint import checkpoint

from visviva.errors import InputError
from visviva.models.probes.flow.correlation import AllPairs
from visviva.models.probes.flow.weights import filled, read

LEVELS = 4
"""Scales of the correlation pyramid: images need 8 * 2^LEVELS = 128 pixels at least."""


def _conv(inputs: int, outputs: int, kernel: int | tuple[int, int] = 3, stride: int = 1) -> nn.Conv2d:
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    return nn.Conv2d(inputs, outputs, sides, stride, (sides[0] // 2, sides[1] // 2))


def _unit(inputs: int, outputs: int, norm: Any, kernel: int = 3, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """Convolution, normalisation, ReLU; positions 0, 1, 2 as in the public weights."""
    parts: list[nn.Module] = [_conv(inputs, outputs, kernel, stride)]
    if norm is not None:
        parts.append(norm(outputs))
    return nn.Sequential(*parts, *([nn.ReLU()] if relu else []))


class _Block(nn.Module):
    """Residual block of two (large) or, as a bottleneck, three (small) convolutions."""

    def __init__(self, inputs: int, outputs: int, norm: Any, stride: int, bottleneck: bool) -> None:
        super().__init__()
        inner = outputs // 4
        if bottleneck:
            self.convnormrelu1 = _unit(inputs, inner, norm, 1)
            self.convnormrelu2 = _unit(inner, inner, norm, 3, stride)
            self.convnormrelu3 = _unit(inner, outputs, norm, 1)
        else:
            self.convnormrelu1 = _unit(inputs, outputs, norm, 3, stride)
            self.convnormrelu2 = _unit(outputs, outputs, norm)
        self.bottleneck = bottleneck
        self.downsample = _unit(inputs, outputs, norm, 1, stride, relu=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.convnormrelu2(self.convnormrelu1(x))
        return torch.relu(self.downsample(x) + (self.convnormrelu3(y) if self.bottleneck else y))


class _Encoder(nn.Module):
    """Features at 1/8 of the resolution."""

    def __init__(self, widths: tuple[int, ...], norm: Any, bottleneck: bool) -> None:
        super().__init__()
        first, one, two, three, last = widths
        self.convnormrelu = _unit(3, first, norm, 7, 2)
        self.layer1 = self._layer(first, one, norm, 1, bottleneck)
        self.layer2 = self._layer(one, two, norm, 2, bottleneck)
        self.layer3 = self._layer(two, three, norm, 2, bottleneck)
        self.conv = _conv(three, last, 1)

    @staticmethod
    def _layer(inputs: int, outputs: int, norm: Any, stride: int, bottleneck: bool) -> nn.Sequential:
        first = _Block(inputs, outputs, norm, stride, bottleneck)
        return nn.Sequential(first, _Block(outputs, outputs, norm, 1, bottleneck))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.layer3(self.layer2(self.layer1(self.convnormrelu(x)))))


class _Motion(nn.Module):
    """What the recurrent unit is told of correlation and flow."""

    def __init__(self, seen: int, corr: tuple[int, ...], flow: tuple[int, int], outputs: int) -> None:
        super().__init__()
        self.convcorr1 = _unit(seen, corr[0], None, 1)
        self.convcorr2 = _unit(corr[0], corr[1], None) if len(corr) == 2 else nn.Identity()
        self.convflow1, self.convflow2 = _unit(2, flow[0], None, 7), _unit(flow[0], flow[1], None)
        self.conv = _unit(corr[-1] + flow[-1], outputs - 2, None)

    def forward(self, flow: Tensor, seen: Tensor) -> Tensor:
        corr = self.convcorr2(self.convcorr1(seen))
        both = torch.cat([corr, self.convflow2(self.convflow1(flow))], 1)
        return torch.cat([self.conv(both), flow], 1)


class _Gru(nn.Module):
    def __init__(self, hidden: int, inputs: int, kernel: int | tuple[int, int]) -> None:
        super().__init__()
        self.convz, self.convr, self.convq = (_conv(hidden + inputs, hidden, kernel) for _ in range(3))

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        told = torch.cat([h, x], 1)
        z, r = torch.sigmoid(self.convz(told)), torch.sigmoid(self.convr(told))
        return (1 - z) * h + z * torch.tanh(self.convq(torch.cat([r * h, x], 1)))


class _Recurrent(nn.Module):
    """One gated unit (small), or one along rows and one along columns (large)."""

    def __init__(self, hidden: int, inputs: int, separable: bool) -> None:
        super().__init__()
        self.convgru1 = _Gru(hidden, inputs, (1, 5) if separable else 3)
        self.convgru2: nn.Module | None = _Gru(hidden, inputs, (5, 1)) if separable else None

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        h = self.convgru1(h, x)
        return h if self.convgru2 is None else self.convgru2(h, x)


class _Head(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(hidden, inner), _conv(inner, 2)

    def forward(self, h: Tensor) -> Tensor:
        return self.conv2(torch.relu(self.conv1(h)))


class _Update(nn.Module):
    def __init__(self, motion: _Motion, told: int, hidden: int, inner: int, separable: bool) -> None:
        super().__init__()
        self.motion_encoder = motion
        self.recurrent_block, self.flow_head = _Recurrent(hidden, told, separable), _Head(hidden, inner)

    def forward(self, h: Tensor, context: Tensor, seen: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        h = self.recurrent_block(h, torch.cat([context, self.motion_encoder(flow, seen)], 1))
        return h, self.flow_head(h)


class _Mask(nn.Module):
    """Weights of the convex combination, of a quarter of the size so that their gradient is balanced (as published)."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.convrelu, self.conv = _unit(hidden, inner, None), _conv(inner, 8 * 8 * 9, 1)

    def forward(self, h: Tensor) -> Tensor:
        return 0.25 * self.conv(self.convrelu(h))


class RAFTNetwork(nn.Module):
    """The network. Small: 990 162 parameters, large: 5 257 536.

    Args:
        size: small or large.
        detach: cut the gradient of the lookup's position between updates, as published; False keeps it.
        checkpointing: recompute each update in the backward pass instead of keeping its activations.
        chunk: pixels of the first frame whose correlation with the whole second frame is kept at once; None keeps all
            (memory 4/3 (H W / 64)^2 numbers per pair); a whole number recomputes the correlation at every lookup, in parts.

    Example::

        flows = RAFTNetwork("small")(2 * first - 1, 2 * second - 1)  # 12 flows (M, 2, H, W) [px]
    """

    def __init__(
        self, size: str = "large", *, detach: bool = True, checkpointing: bool = False, chunk: int | None = None
    ) -> None:
        super().__init__()
        if size not in ("small", "large"):
            raise InputError(f"RAFT has no size {size!r}; the sizes are small, large")
        if chunk is not None and chunk < 1:
            raise InputError(f"chunk is {chunk}; give 1 or more pixels, or None for all at once")
        self.size, self.detach, self.checkpointing, self.chunk = size, detach, checkpointing, chunk
        small = size == "small"
        self.hidden, self.radius = (96, 3) if small else (128, 4)
        seen, widths = LEVELS * (2 * self.radius + 1) ** 2, (32, 32, 64, 96) if small else (64, 64, 96, 128)
        self.feature_encoder = _Encoder((*widths, 128 if small else 256), nn.InstanceNorm2d, small)
        self.context_encoder = _Encoder((*widths, 160 if small else 256), None if small else nn.BatchNorm2d, small)
        motion = _Motion(seen, (96,), (64, 32), 82) if small else _Motion(seen, (256, 192), (128, 64), 128)
        told = 64 + 82 if small else 128 + 128
        self.update_block = _Update(motion, told, self.hidden, 128 if small else 256, not small)
        self.mask_predictor = None if small else _Mask(128, 256)

    def forward(
        self, first: Float[Tensor, "M 3 H W"], second: Float[Tensor, "M 3 H W"], updates: int = 12
    ) -> list[Float[Tensor, "M 2 H W"]]:
        """Return the flow after every update [px]; images in [-1, 1], sides divisible by 8 and at least 128."""
        height, width = first.shape[-2:]
        if height % 8 or width % 8 or min(height, width) < 8 * 2**LEVELS:
            raise InputError(f"RAFT cannot take images of {height} x {width} pixels; sides are multiples of 8, from 128 on")
        one, two = self.feature_encoder(torch.cat([first, second])).chunk(2)
        pairs = AllPairs(one, two, LEVELS, self.radius, self.chunk)
        state, context = self.context_encoder(first).split([self.hidden, 64 if self.size == "small" else 128], 1)
        state, context = torch.tanh(state), torch.relu(context)
        flow, flows = one.new_zeros(len(one), 2, height // 8, width // 8), []
        for _ in range(updates):
            flow = flow.detach() if self.detach else flow
            arguments = (pairs, state, context, flow)
            state, flow = (
                checkpoint(self._step, *arguments, use_reentrant=False) if self.checkpointing else self._step(*arguments)
            )
            flows.append(self._upsampled(flow, state))
        return flows

    def _step(self, pairs: AllPairs, state: Tensor, context: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        state, step = self.update_block(state, context, pairs(flow), flow)
        return state, flow + step

    def _upsampled(self, flow: Tensor, state: Tensor) -> Tensor:
        if self.mask_predictor is None:
            return 8 * interpolate(flow, scale_factor=8, mode="bilinear", align_corners=True)
        count, _, height, width = flow.shape
        weights = self.mask_predictor(state).view(count, 1, 9, 8, 8, height, width).softmax(2)
        near = unfold(pad(8 * flow, (1, 1, 1, 1)), 3).view(count, 2, 9, 1, 1, height, width)
        return (weights * near).sum(2).permute(0, 1, 4, 2, 5, 3).reshape(count, 2, 8 * height, 8 * width)


def load_raft(path: str | Path, size: str | None = None, **options: Any) -> RAFTNetwork:
    """Return the network with weights of torchvision's layout from a ``.safetensors`` or ``.pth`` file, frozen, in eval mode.

    Without ``size`` it is read off the names.

    Raises:
        InputError: no such file, a file of another kind, or names or shapes that are not RAFT's (they are listed).
    """
    weights = read(path)
    found = size or ("large" if any(k.startswith("mask_predictor.") for k in weights) else "small")
    return filled(RAFTNetwork(found, **options), weights, f"{path}: torchvision's weights of RAFT {found}")
