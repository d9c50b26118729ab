"""Frozen encoders for distances between sets of clips and for consistency of frames: local weights, or a labelled stand-in.

They run on the first GPU where there is one; nothing is downloaded. The stand-ins have no weights: averages of colour and
change on a coarse grid. They carry the tests and tell gross differences apart; a number made with one is *uncalibrated*.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from visviva.errors import InputError
from visviva.models.probes.features import MEAN, STD, VJEPA2Features


class GridClips:
    """Stand-in for clip features: colour and change averaged on a 4 x 2 x 2 grid of time and space, (B, 64)."""

    name = "a colour grid (stand-in)"
    stand_in = True

    def __call__(self, frames: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B 64"]:
        """Return the features."""
        change = torch.cat([frames[:, 1:] - frames[:, :-1], torch.zeros_like(frames[:, :1])], dim=1).abs().mean(2, keepdim=True)
        return functional.adaptive_avg_pool3d(torch.cat([frames, 5 * change], dim=2).transpose(1, 2), (4, 2, 2)).flatten(1)


class GridFrames:
    """Stand-in for frame features: colour on a 4 x 4 grid around middle grey, (T, 48)."""

    name = "a colour grid (stand-in)"
    stand_in = True

    def __call__(self, frames: Float[Tensor, "T 3 H W"]) -> Float[Tensor, "T 48"]:
        """Return the features."""
        return functional.adaptive_avg_pool2d(frames, 4).flatten(1) - 0.5


class ViTFrames:
    """Class token of a ViT per frame (DINO ViT-B/16 in VBench): short side as the model's images (224), the long one in
    proportion, bilinear without antialiasing, ImageNet mean and deviation; what is less than a patch at the far ends is cut.

    Args:
        path: local folder of a transformers ``ViTModel`` or ``Dinov2Model`` with safetensors.
    """

    def __init__(self, path: str | Path) -> None:
        self.model = _local(path, ("vit", "dinov2"), "a ViT")
        self.name = Path(path).name

    @torch.no_grad()
    def __call__(self, frames: Float[Tensor, "T 3 H W"]) -> Float[Tensor, "T D"]:
        """Return the class tokens."""
        patch, side = int(self.model.config.patch_size), int(self.model.config.image_size)
        size = [int(side * n / min(frames.shape[-2:])) for n in frames.shape[-2:]]
        frames = frames.to(self.model.device)
        images = functional.interpolate(frames, size=size, mode="bilinear", align_corners=False, antialias=False)
        images = images[..., : size[0] // patch * patch, : size[1] // patch * patch]
        images = (images - images.new_tensor(MEAN).view(3, 1, 1)) / images.new_tensor(STD).view(3, 1, 1)
        extra = {"interpolate_pos_encoding": True} if self.model.config.model_type == "vit" else {}
        return torch.cat([self.model(x, **extra).last_hidden_state[:, 0] for x in images.split(8)])


class VideoMAEClips:
    """Mean token of a VideoMAE encoder (cd-FVD, arXiv 2404.12391): 16 frames, stretched to its size, in [0, 1] *without* mean
    and deviation, as published.

    Args:
        path: local folder of a transformers ``VideoMAEModel`` with safetensors.
    """

    def __init__(self, path: str | Path) -> None:
        self.model = _local(path, ("videomae",), "a VideoMAE")
        self.name = Path(path).name

    @torch.no_grad()
    def __call__(self, frames: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B D"]:
        """Return the features; frames are sampled evenly."""
        config = self.model.config
        index = torch.linspace(0, frames.shape[1] - 1, config.num_frames, dtype=torch.float64).long()
        size = (int(config.image_size), int(config.image_size))
        chosen = frames[:, index].flatten(0, 1).to(self.model.device)
        images = functional.interpolate(chosen, size=size, mode="bilinear", align_corners=False)
        return self.model(images.unflatten(0, (len(frames), -1))).last_hidden_state.mean(1)


class VJEPA2Clips:
    """Mean token of V-JEPA 2 (JEDi, arXiv 2410.05203, uses V-JEPA with a trained pooler: "JEDi-style")."""

    def __init__(self, path: str | Path) -> None:
        self.features = VJEPA2Features(path, device=best_device())
        self.name = Path(path).name

    @torch.no_grad()
    def __call__(self, frames: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B D"]:
        """Return the features."""
        index = torch.linspace(0, frames.shape[1] - 1, 16, dtype=torch.float64).long()
        return self.features.encode(frames[:, index].to(best_device())).mean(1)


def clip_encoder(encoder: Any) -> Any:
    """Return clip features: a given function, the model in a folder (VideoMAE, V-JEPA 2), or the stand-in for nothing."""
    if not encoder:
        return GridClips()
    if not isinstance(encoder, str | Path):
        return encoder
    return VJEPA2Clips(encoder) if _kind(encoder) == "vjepa2" else VideoMAEClips(encoder)


def frame_encoder(encoder: Any) -> Any:
    """Return frame features: a given function, the ViT in a folder, or the stand-in for nothing."""
    if not encoder:
        return GridFrames()
    return ViTFrames(encoder) if isinstance(encoder, str | Path) else encoder


def called(encoder: Any) -> str:
    """Return what an encoder or a probe is called in results."""
    return str(getattr(encoder, "name", getattr(encoder, "__name__", type(encoder).__name__)))


def _kind(path: str | Path) -> str:
    if not (Path(path) / "config.json").is_file():
        raise InputError(f"no model in {str(path)!r}; give a local folder with config.json and safetensors weights")
    from transformers import AutoConfig

    return str(AutoConfig.from_pretrained(path, local_files_only=True).model_type)


def _local(path: str | Path, kinds: tuple[str, ...], what: str) -> Any:
    kind = _kind(path)
    if kind not in kinds:
        raise InputError(f"the model in {str(path)!r} is of type {kind!r}; give {what} ({' or '.join(kinds)})")
    if not list(Path(path).glob("*.safetensors")):
        raise InputError(f"no safetensors weights in {str(path)!r}; convert the checkpoint with save_pretrained first")
    from transformers import AutoModel

    model: Any = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True)
    return model.to(best_device()).eval().requires_grad_(False)


def best_device() -> torch.device:
    """Return the device that frozen networks of benchmarks run on: the first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
