"""Re-projected skeletons as heat maps, and the adapter through which they guide a frozen diffusion network (FinePhys, fig. 2).

Primary: heat maps of the re-computed 2D skeleton, a trainable adapter of stages [convolution, max-pool, ResNet blocks, 1x1
convolution], features of several scales added at the stages of the UNet. Reconstructed: everything inside a stage; the frozen
skeleton encoder (trained on HumanArt, not published) is left out, the adapter sees the maps themselves; the last convolution of
every stage begins at zero, so that the guided network begins as the base.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from visviva.errors import InputError
from visviva.models.reestimation.joints import PARENTS


def heatmaps(
    image: Float[Tensor, "*batch J 2"],
    height: int,
    width: int,
    sigma: float = 0.02,
    confidence: Float[Tensor, "*batch J"] | None = None,
) -> Float[Tensor, "*batch C H W"]:
    """Return one map per joint, ``exp(-d^2 / 2 sigma^2)``, and one per bone, with d the distance from its segment.

    Differentiable with respect to the points.

    Args:
        image: joints in image heights from the image's middle, u right, v down (`visviva.models.reestimation.camera`).
        height, width: of the maps [px].
        sigma: of the bumps [image heights]; ``confidence``: scales the joints' maps, and each bone's with its lower end.

    Returns:
        J maps of joints, then J - 1 of bones (Human3.6M's tree).

    Raises:
        InputError: sizes that are not positive, or another number of joints than the tree has.
    """
    if height < 1 or width < 1 or sigma <= 0 or image.shape[-2] != len(PARENTS):
        raise InputError(
            f"heat maps of {image.shape[-2]} joints, {height} x {width} px, sigma {sigma}; {len(PARENTS)} joints, sizes > 0"
        )
    rows = ((torch.arange(height).to(image) + 0.5) / height - 0.5)[:, None].expand(height, width)
    columns = ((torch.arange(width).to(image) + 0.5 - width / 2) / height)[None].expand(height, width)
    pixels = torch.stack([columns, rows], -1)
    joint = (pixels - image[..., None, None, :]).square().sum(-1)
    ends, starts = image[..., 1:, :], image[..., list(PARENTS[1:]), :]
    along = ends - starts
    offset = pixels - starts[..., None, None, :]
    share = (offset * along[..., None, None, :]).sum(-1) / along.square().sum(-1)[..., None, None].clamp(min=1e-8)
    bone = (offset - share.clamp(0, 1)[..., None] * along[..., None, None, :]).square().sum(-1)
    maps = (-torch.cat([joint, bone], -3) / (2 * sigma**2)).exp()
    if confidence is not None:
        maps = maps * torch.cat([confidence, confidence[..., 1:]], -1)[..., None, None]
    return maps


class Stage(nn.Module):
    """Convolution, max-pool to half the size, one ResNet block; its 1x1 convolution begins at zero."""

    def __init__(self, inner: int, outer: int, channels: int, halve: bool) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inner, outer, 3, padding=1)
        self.pool = nn.MaxPool2d(2) if halve else nn.Identity()
        self.block = nn.Sequential(
            nn.SiLU(), nn.Conv2d(outer, outer, 3, padding=1), nn.SiLU(), nn.Conv2d(outer, outer, 3, padding=1)
        )
        self.leave = nn.Conv2d(outer, channels, 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what goes on to the next stage, and what is added to the network."""
        x = self.pool(self.enter(x))
        x = x + self.block(x)
        return x, self.leave(x)


class SkeletonAdapter(nn.Module):
    """Heat maps to features of the scales and widths of a network's stages.

    Args:
        channels: of the network's stages, from fine to coarse; each after the first is half the size of the one before.
        maps: of the heat maps (joints and bones). width: of the adapter's own stages. first: how much coarser the first stage
            is than the maps, a power of two.

    Example::

        adapter = SkeletonAdapter((320, 640, 1280, 1280))
        features = adapter(heatmaps(image, 64, 64))
        unet(latents, time, text, down_intrablock_additional_residuals=features)  # diffusers' UNet2DConditionModel
        adapter.added(wan.patch_embedding, features[0])  # or at any module, here before a DiT's blocks
    """

    def __init__(self, channels: Sequence[int], maps: int = 2 * len(PARENTS) - 1, width: int = 64, first: int = 1) -> None:
        super().__init__()
        if not channels or first < 1 or first & (first - 1):
            raise InputError(
                f"an adapter for stages of {tuple(channels)} channels, {first} times coarser; give stages, a power of 2"
            )
        self.shrink = nn.AvgPool2d(first) if first > 1 else nn.Identity()
        sizes = [maps, *[width] * len(channels)]
        self.stages = nn.ModuleList(Stage(sizes[k], width, c, k > 0) for k, c in enumerate(channels))

    def forward(self, maps: Float[Tensor, "N C H W"]) -> list[Float[Tensor, "N C2 H2 W2"]]:
        """Return one feature map per stage."""
        x, features = self.shrink(maps), []
        for stage in self.stages:
            x, feature = stage(x)
            features.append(feature)
        return features

    @staticmethod
    def added(module: nn.Module, feature: Tensor) -> torch.utils.hooks.RemovableHandle:
        """Add a feature to whatever the module returns, until the returned handle is removed; shapes must broadcast."""
        return module.register_forward_hook(lambda _module, _given, found: found + feature.to(found))
