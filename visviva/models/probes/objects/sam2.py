"""Masks by SAM 2 (arXiv 2408.00714) through transformers, from a local folder of weights: first masks in, all masks out.

Preprocessing is plain torch (bilinear resize to the network's square picture, ImageNet normalisation): the processor of
transformers needs torchvision. The model runs under inference mode: masks are cloned to leave it and carry no gradient.
A randomly initialised network says nothing: give trained weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.models.probes.features import MEAN, STD


class SAM2Masks:
    """Mask source that follows given first masks, or those of the things that move, by a frozen ``Sam2VideoModel``.

    Args:
        path: folder of the model in transformers format (``config.json`` and safetensors); nothing is downloaded.
        device: where the network runs; masks come back to the device of the frames.
        start: finds first masks where none are given, such as `Moving`; called with the frames, its masks of the frame in which
            each clip shows most of all objects are used.

    Raises:
        InputError: the folder is missing or holds another model; no masks and no ``start``.

    Example::

        source = SAM2Masks("weights/sam2.1-hiera-tiny")
        masks = source(frames, first[:, None])  # (B, T, N, H, W) in [0, 1]
    """

    differentiable = False

    def __init__(self, path: str | Path, device: torch.device | str = "cpu", start: Any = None) -> None:
        self.model = _sam2(Path(path)).to(device).eval().requires_grad_(False)
        self.device, self.start = torch.device(device), start
        self.side = int(self.model.image_size)

    def __call__(self, frames: Float[Tensor, "B T 3 H W"], masks: Float[Tensor, "B t N H W"] | None) -> Tensor:
        """Return masks (B, T, N, H, W), detached; known masks of all frames are returned as they are.

        Clips go one after the other: a session of the network holds one video, and its memory runs over the frames.
        """
        if masks is not None and masks.shape[1] == frames.shape[1]:
            return masks
        if masks is None and self.start is None:
            raise InputError("SAM 2 follows objects from masks; pass first masks, or give SAM2Masks(..., start=Moving())")
        if masks is None:
            found = self.start(frames.detach(), None)
            at = found.sum((-2, -1)).amin(2).argmax(1)
            masks = found.gather(1, at.view(-1, 1, 1, 1, 1).expand(-1, 1, *found.shape[2:]))
        else:
            at = torch.zeros(len(frames), dtype=torch.long)
        followed = [self._follow(clip, first[0], int(k)) for clip, first, k in zip(frames.detach(), masks, at, strict=True)]
        return torch.stack(followed).to(frames)

    def prepare(self, clip: Float[Tensor, "T 3 H W"]) -> Float[Tensor, "T 3 S S"]:
        """Return the network's pictures of a clip."""
        images = torch.nn.functional.interpolate(clip, (self.side, self.side), mode="bilinear", antialias=True)
        mean, std = (images.new_tensor(value).view(3, 1, 1) for value in (MEAN, STD))
        return (images - mean) / std

    def _follow(self, clip: Tensor, first: Tensor, at: int) -> Tensor:
        """Follow the objects of one clip both ways from frame ``at``, shape (T, N, H, W)."""
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        shape, pictures = clip.shape[-2:], self.prepare(clip).to(self.device)
        session = Sam2VideoInferenceSession(
            video=pictures, video_height=shape[0], video_width=shape[1], inference_device=self.device,
            inference_state_device=self.device, video_storage_device=self.device, dtype=self.model.dtype,
        )  # fmt: skip
        seeds = torch.nn.functional.interpolate(first[None].float(), (self.side, self.side), mode="bilinear", antialias=True)
        for number, seed in enumerate(seeds[0]):
            index = session.obj_id_to_idx(number)
            session.add_mask_inputs(index, at, (seed >= 0.5).float()[None, None].to(self.device))
        session.obj_with_new_inputs = list(range(len(first)))
        logits: dict[int, Tensor] = {at: self.model(session, frame_idx=at).pred_masks.clone()}
        for reverse in (False, True):
            for out in self.model.propagate_in_video_iterator(session, start_frame_idx=at, reverse=reverse):
                logits[int(out.frame_idx)] = out.pred_masks.clone()
        low = torch.stack([logits[t] for t in range(len(clip))])[:, :, 0]
        return torch.nn.functional.interpolate(low.float(), shape, mode="bilinear", align_corners=False).sigmoid()


def _sam2(path: Path) -> Any:
    if not (path / "config.json").is_file():
        raise InputError(f"no SAM 2 model in {str(path)!r}; give a local folder with config.json and safetensors weights")
    from transformers import AutoConfig, Sam2VideoModel

    kind = AutoConfig.from_pretrained(path, local_files_only=True).model_type
    if kind != "sam2_video":
        raise InputError(f"the model in {str(path)!r} is of type {kind!r}; give a SAM 2 video model ('sam2_video')")
    if not list(path.glob("*.safetensors")):
        raise InputError(f"no safetensors weights in {str(path)!r}; convert the checkpoint with save_pretrained first")
    return Sam2VideoModel.from_pretrained(path, local_files_only=True, use_safetensors=True)
