"""The project's own small flow network: one recurrent cell for every scale, from coarse to fine, a third of a million weights.

Ideas and where they are from: a pyramid with warped features and a local correlation at each scale (SPyNet, arXiv 1611.00850;
PWC-Net, arXiv 1709.02371), one set of weights for all scales (IRR, arXiv 1904.05290), a recurrent hidden state that updates the
flow (RAFT, arXiv 2003.12039), convex upsampling (RAFT) and a Laplace scale of the error (SEA-RAFT, arXiv 2405.14793). The
arrangement is this project's.

At each scale the images are halved once more; the encoder gives features at 1/4 of that scale. The cell correlates the first
frame's features with the second's, warped by the current flow, updates its hidden state and adds to the flow; hidden state and
flow, doubled, go to the next finer scale. A light stage at half resolution refines the last flow, a convex combination of
neighbours brings it to full resolution, and a last stage there polishes it. So that little training suffices, every update is
also told two estimates that need no weights (`Cues`): the mean displacement under a softmax of the correlation (not the last),
and a Lucas-Kanade step.

No path from pixels to flow has an additive constant, and the input is the picture less its mean: a blank picture has flow 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad, silu, softshrink, unfold

from visviva.models.probes.flow.correlation import local_correlation
from visviva.physics.kinematics import displaced

COARSEST = 16
"""Short side of the coarsest image in the pyramid, at least [px]."""
SHARPNESS, DAMPING = 8.0, 0.02
"""Of the softmax over correlations in [-1, 1], and of the normal equations of pictures of unit variance."""


def conv(inputs: int, outputs: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """Return a 3x3 convolution, without additive constant unless asked for."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bias)


class Encoder(nn.Module):
    """Features of an image at 1/2 and 1/4 of its resolution."""

    def __init__(self, fine: int, features: int) -> None:
        super().__init__()
        self.first, self.second = conv(4, fine, 2), conv(fine, fine)
        self.third, self.fourth, self.fifth = conv(fine, features, 2), conv(features, features), conv(features, features)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return (M, fine, H/2, W/2) and (M, features, H/4, W/4)."""
        half = silu(self.first(image))
        half = half + silu(self.second(half))
        quarter = silu(self.third(half))
        return half, quarter + self.fifth(silu(self.fourth(quarter)))


class Cues:
    """What every update sees of one scale: correlation, and two estimates of what is missing in the flow.

    Args:
        features, images: of both frames at the same resolution, (2M, C, H, W) and (2M, c, H, W).
        radius: of the correlation [cells].
    """

    def __init__(self, features: Tensor, images: Tensor, radius: int) -> None:
        self.first, self.second = features.chunk(2)
        self.one, self.two = images.chunk(2)
        self.radius = radius

    def __call__(self, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Return the correlation (M, (2r + 1)^2, H, W) and the estimates (M, 5, H, W) [cells] around a flow [cells]."""
        seen = local_correlation(self.first, displaced(self.second, flow), self.radius)
        return seen, torch.cat([_expected(seen, self.radius), _newton(self.one, displaced(self.two, flow))], 1)


def _expected(correlation: Tensor, radius: int) -> Tensor:
    """Mean displacement under a softmax of the correlation, (M, 2, H, W)."""
    offset = torch.arange(-radius, radius + 1, dtype=correlation.dtype, device=correlation.device)
    places = torch.stack([offset.repeat(len(offset)), offset.repeat_interleave(len(offset))])
    return torch.nn.functional.conv2d((SHARPNESS * correlation).softmax(1), places[:, :, None, None])


def _newton(one: Tensor, warped: Tensor) -> Tensor:
    """Lucas-Kanade step over windows of 5 x 5 cells, at most 2 cells long, and its determinacy in [0, 1): (M, 3, H, W)."""
    mean, apart = pad((one + warped) / 2, (1, 1, 1, 1), mode="replicate"), warped - one
    gx, gy = (mean[..., 1:-1, 2:] - mean[..., 1:-1, :-2]) / 2, (mean[..., 2:, 1:-1] - mean[..., :-2, 1:-1]) / 2
    products = torch.cat([(u * v).sum(1, keepdim=True) for u, v in ((gx, gx), (gx, gy), (gy, gy), (gx, apart), (gy, apart))], 1)
    a, b, c, p, q = _box(products, 5).unbind(1)
    a, c = a + DAMPING, c + DAMPING
    determinant = a * c - b * b
    step = torch.stack([b * q - c * p, b * p - a * q], 1) / determinant[:, None]
    known = determinant / (determinant + (3 * DAMPING) ** 2) - 0.1
    return torch.cat([2 * torch.tanh(step / 2), known.clamp(min=0)[:, None]], 1)


class Cell(nn.Module):
    """One update of flow and hidden state (a gated unit), the same at every scale."""

    def __init__(self, features: int, hidden: int, radius: int) -> None:
        super().__init__()
        self.motion = nn.Conv2d((2 * radius + 1) ** 2 + 7, hidden, 1, bias=False)
        self.mix = conv(hidden, hidden)
        self.gate = conv(2 * hidden + features, hidden, bias=True)
        self.proposal = conv(2 * hidden + features, hidden)
        self.turn, self.step = nn.Conv2d(hidden, hidden, 1, bias=False), conv(hidden + 5, 2)

    def forward(self, state: Tensor, flow: Tensor, first: Tensor, seen: Tensor, estimates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new state and flow [cells]."""
        motion = silu(self.motion(torch.cat([seen, estimates, flow / 4], 1)))
        motion = motion + silu(self.mix(motion))
        told = torch.cat([state, motion, first], 1)
        gate = torch.sigmoid(self.gate(told))
        state = state + gate * (torch.tanh(self.proposal(told)) - state)
        return state, flow + self.step(torch.cat([silu(self.turn(state)), estimates], 1))


class Refiner(nn.Module):
    """Update of the flow at half resolution, with the weights of its upsampling and the log-scale of its error."""

    def __init__(self, fine: int, hidden: int, radius: int) -> None:
        super().__init__()
        self.carry = nn.Conv2d(hidden, fine, 1, bias=False)
        self.enter = conv((2 * radius + 1) ** 2 + 7 + 2 * fine, 2 * fine)
        self.inner = conv(2 * fine, 2 * fine)
        self.step, self.weights, self.scale = conv(2 * fine + 5, 2), nn.Conv2d(2 * fine, 36, 1), conv(2 * fine, 1, bias=True)

    def forward(self, state: Tensor, flow: Tensor, first: Tensor, seen: Tensor, estimates: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stage's inner features and the new flow [cells]."""
        inner = silu(self.enter(torch.cat([seen, estimates, flow / 4, first, state], 1)))
        inner = inner + silu(self.inner(inner))
        return inner, flow + self.step(torch.cat([inner, estimates], 1))


class Polisher(nn.Module):
    """Last update of the flow at full resolution, from a Lucas-Kanade step there and the stage before."""

    def __init__(self, fine: int, inner: int) -> None:
        super().__init__()
        self.carry = nn.Conv2d(2 * fine, inner, 1, bias=False)
        self.enter, self.inner, self.step = conv(inner + 6, inner), conv(inner, inner), conv(inner + 3, 2)

    def forward(self, inner: Tensor, flow: Tensor, contrast: Tensor, step: Tensor) -> Tensor:
        """Return the new flow [px]; ``inner`` is of half resolution."""
        seen = silu(self.enter(torch.cat([_double(self.carry(inner)), step, contrast, flow / 8], 1)))
        seen = seen + silu(self.inner(seen))
        return flow + self.step(torch.cat([seen, step], 1))


class FlowPyramid(nn.Module):
    """Optical flow of image pairs.

    Args:
        features, hidden, fine: channels of the features, of the hidden state, and at half resolution.
        polish: channels at full resolution.
        radius: of the local correlation at each scale [cells].
        iterations: updates at the finest scale of the cell; the coarser ones take one each.
        detach: cut the gradient between updates, as in training; without, the gradient of the flow with respect to the
            pixels is complete.

    Example::

        flow, scale = FlowPyramid()(first, second)  # (M, 3, H, W) in [0, 1] each -> (M, 2, H, W) px, (M, 1, H, W) log px
    """

    def __init__(
        self,
        features: int = 48,
        hidden: int = 64,
        fine: int = 16,
        polish: int = 12,
        radius: int = 3,
        iterations: int = 2,
        detach: bool = False,
    ) -> None:
        super().__init__()
        self.iterations, self.detach, self.radius = iterations, detach, radius
        self.encoder = Encoder(fine, features)
        self.context, self.carried = nn.Conv2d(features, hidden, 1, bias=False), nn.Conv2d(hidden, hidden, 1, bias=False)
        self.cell, self.refiner, self.polisher = (
            Cell(features, hidden, radius),
            Refiner(fine, hidden, 1),
            Polisher(fine, polish),
        )
        with torch.no_grad():  # begin as an iterative Lucas-Kanade of half steps
            for step in (self.cell.step, self.refiner.step, self.polisher.step):
                step.weight.mul_(0.1)
                step.weight[(0, 1), (-3, -2), 1, 1] = 0.5

    def forward(
        self, first: Float[Tensor, "M 3 H W"], second: Float[Tensor, "M 3 H W"]
    ) -> tuple[Float[Tensor, "M 2 H W"], Float[Tensor, "M 1 H W"]]:
        """Return the flow [px] and the logarithm of the scale b of its error [px]: density exp(-|e| / b) / (2 pi b^2)."""
        flows, scale = self.steps(first, second)
        return flows[-1], scale

    def steps(self, first: Tensor, second: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the flow after every update, at full resolution, coarse ones first, and the log-scale of the last."""
        height, width = first.shape[-2:]
        pairs = self._pyramid(first, second)
        size = pairs[0].shape[-2:]
        flows: list[Tensor] = []
        state = flow = torch.empty(0)
        for level in reversed(range(len(pairs))):
            half, quarter = self.encoder(pairs[level])
            cues = Cues(_unit(quarter), avg_pool2d(pairs[level], 4), self.radius)
            context = self.context(cues.first)
            if level == len(pairs) - 1:
                state, flow = torch.tanh(context), context.new_zeros(len(first), 2, *context.shape[-2:], dtype=torch.float32)
            else:
                state, flow = torch.tanh(context + self.carried(_double(state))), 2 * _double(flow)
            for _ in range(1 if level else self.iterations):
                state, flow = self.cell(state, self._cut(flow), cues.first, *cues(self._cut(flow)))
                flows.append(_to(flow, size, 4 * 2**level))
        cues = Cues(_unit(half), avg_pool2d(pairs[0], 2), 1)
        carried, flow = self.refiner.carry(_double(state)), 2 * _double(flow)
        inner, flow = self.refiner(carried, self._cut(flow), cues.first, *cues(self._cut(flow)))
        flows.append(2 * _convex(flow, self.refiner.weights(inner).float()))
        flow, (one, two) = self._cut(flows[-1]), pairs[0].chunk(2)
        flows.append(self.polisher(inner, flow, one[:, 3:], _newton(one, displaced(two, flow))))
        scale = interpolate(self.refiner.scale(inner).float(), scale_factor=2, mode="bilinear").clamp(-5, 4)
        return [f[..., :height, :width] for f in flows], scale[..., :height, :width]

    def _cut(self, flow: Tensor) -> Tensor:
        return flow.detach() if self.detach else flow

    def _pyramid(self, first: Tensor, second: Tensor) -> list[Tensor]:
        """Images of both frames (2M, 4, h, w) at every scale, finest first, padded so that all scales fit together."""
        height, width = first.shape[-2:]
        levels = 1
        while min(height, width) >> levels >= COARSEST and levels < 6:
            levels += 1
        step = 2 ** (levels + 1)
        both = torch.cat([first, second]).float()
        both = pad(both, (0, -width % step, 0, -height % step), mode="replicate")
        centre = both.detach().mean((1, 2, 3), keepdim=True)
        centre = ((centre[: len(first)] + centre[len(first) :]) / 2).repeat(2, 1, 1, 1)
        spread = both.detach().sub(centre).square().mean((1, 2, 3), keepdim=True)
        spread = ((spread[: len(first)] + spread[len(first) :]) / 2 + 1e-3).sqrt().repeat(2, 1, 1, 1)
        images = [softshrink(both - centre, 1e-4) / spread]  # rounding errors of a blank picture are no texture
        for _ in range(levels - 1):
            images.append(avg_pool2d(images[-1], 2))
        return [torch.cat([image, _local_contrast(image)], 1) for image in images]


def _local_contrast(image: Tensor, window: int = 9) -> Tensor:
    """Grey image less its local mean, over its local standard deviation, (M, 1, H, W)."""
    grey = image.mean(1, keepdim=True)
    mean = _box(grey, window)
    apart = grey - mean
    return apart / (_box(apart.square(), window) + 0.02).sqrt()


def _box(image: Tensor, window: int) -> Tensor:
    r = window // 2
    return avg_pool2d(pad(image, (r, r, r, r), mode="replicate"), window, 1)


def _unit(features: Tensor) -> Tensor:
    """Features of both frames less their mean over the picture, of about unit size per channel; zero stays zero."""
    first, second = features.float().chunk(2)
    mean = (first.mean((-2, -1), keepdim=True) + second.mean((-2, -1), keepdim=True)) / 2
    features = torch.cat([first - mean, second - mean])
    return features * (features.square().mean(1, keepdim=True) + 1e-2).rsqrt()


def _double(maps: Tensor) -> Tensor:
    return interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


def _to(flow: Tensor, size: tuple[int, ...], factor: int) -> Tensor:
    return factor * interpolate(flow, size, mode="bilinear", align_corners=False)


def _convex(flow: Tensor, weights: Tensor) -> Tensor:
    """Twice the resolution: each pixel a convex combination of the 3x3 neighbourhood of its cell."""
    count, _, height, width = flow.shape
    weights = weights.view(count, 1, 9, 2, 2, height, width).softmax(2)
    near = unfold(pad(flow, (1, 1, 1, 1), mode="replicate"), 3).view(count, 2, 9, 1, 1, height, width)
    return (weights * near).sum(2).permute(0, 1, 4, 2, 5, 3).reshape(count, 2, 2 * height, 2 * width)
