"""How close two images or clips are pixel by pixel: PSNR and SSIM. Evidence of reconstruction, not of physics.

A video's value is the mean over its frames; a data set's the mean over its clips. Higher is better for both.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from visviva.errors import InputError


def psnr(frames: Float[Tensor, "*T C H W"], true: Float[Tensor, "*S c h w"], cap: float = 100.0) -> Float[Tensor, "*T"]:
    """Return ``10 log10(1 / MSE)`` per image [dB] for values in [0, 1], capped (identical images give ``cap``).

    Example: ``psnr(decoded, frames).mean()`` is the round-trip fidelity of a video VAE.
    """
    _check(frames, true)
    mse = (frames.double() - true.double()).square().mean((-3, -2, -1))
    return (-10 * mse.clamp(min=10 ** (-cap / 10)).log10()).clamp(max=cap)


def ssim(frames: Float[Tensor, "*T C H W"], true: Float[Tensor, "*S c h w"]) -> Float[Tensor, "*T"]:
    """Return the structural similarity per image (Wang et al. 2004): 11-tap Gaussian window of sigma 1.5, valid region only.

    C1 = 0.01^2, C2 = 0.03^2 on values in [0, 1], population moments, mean over region and channels. This is scikit-image's
    ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False``, not its default (a 7x7 box window).
    """
    _check(frames, true)
    *batch, channels, height, width = frames.shape
    if min(height, width) < 11:
        raise InputError(f"SSIM needs images of at least 11x11 pixels, not {height}x{width}")
    a = frames.double().reshape(-1, 1, height, width)
    b = true.double().reshape(-1, 1, height, width)
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    cov = _blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return similarity.mean((1, 2, 3)).reshape(*batch, channels).mean(-1)


def _blur(x: Tensor) -> Tensor:
    tap = torch.exp(-((torch.arange(11, dtype=x.dtype) - 5) ** 2) / (2 * 1.5**2)).to(x.device)
    tap = tap / tap.sum()
    return functional.conv2d(functional.conv2d(x, tap.view(1, 1, 11, 1)), tap.view(1, 1, 1, 11))


def _check(frames: Tensor, true: Tensor) -> None:
    if frames.shape != true.shape:
        raise InputError(f"images of shape {tuple(frames.shape)} and {tuple(true.shape)} cannot be compared; resize or cut one")
    if not (bool(frames.isfinite().all()) and bool(true.isfinite().all())):
        raise InputError("the frames hold values that are not finite (NaN or infinity); they cannot be scored")
