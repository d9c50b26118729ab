"""Where 2D poses come from: given ones, ViTPose through transformers, or MediaPipe with a model file. No network is reached.

A source takes frames (T, 3, H, W) in [0, 1] and returns `Poses`. Detectors know people by a box; where none is given it is the
whole picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from visviva.errors import InputError
from visviva.models.reestimation.joints import COUNTS, h36m

MEDIAPIPE = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
"""MediaPipe's landmarks that are COCO's keypoints."""


@dataclass(frozen=True)
class Poses:
    """Human3.6M's joints in every frame.

    Attributes:
        image: (T, 17, 2), in image heights from the image's middle, u right, v down.
        confidence: (T, 17), 0 to 1.
    """

    image: Tensor
    confidence: Tensor


class PoseSource(Protocol):
    """Frames in, 2D poses out."""

    def __call__(self, frames: Float[Tensor, "T 3 H W"]) -> Poses:
        """Return the poses of one person."""
        ...


def given(
    points: Float[Tensor, "T J C"],
    height: float,
    width: float,
    confidence: Float[Tensor, "..."] | None = None,
    layout: str | None = None,
) -> Poses:
    """Return poses of 2D points that are already there.

    Args:
        points: [px], from the top left corner, u right, v down; points that are not finite count as not seen.
        height, width: of the pictures [px].
        confidence: 0 to 1, NaN where nothing is known (0); None: 1 wherever a point is finite.
        layout: of `visviva.models.reestimation.joints`; None: h36m for 17 points, humanml3d for 22, smpl for 24.

    Raises:
        InputError: other shapes, an unknown layout, pictures without a size, no frame in which a joint is seen.

    Example::

        poses = given(keypoints, 1080, 1920, scores, layout="coco")
    """
    if points.ndim != 3 or points.shape[-1] != 2:
        raise InputError(f"2D poses of the shape {tuple(points.shape)}; (frames, joints, 2) is wanted")
    if not (0 < height < float("inf") and 0 < width < float("inf")):
        raise InputError(f"pictures of {width} x {height} px; give the size in which the points were measured")
    counts = {17: "h36m", 22: "humanml3d", 24: "smpl"}
    name = layout or counts.get(points.shape[1], "")
    there = points.isfinite().all(-1)
    if confidence is not None and confidence.shape != points.shape[:2]:
        raise InputError(f"confidences of the shape {tuple(confidence.shape)} for {tuple(points.shape[:2])} points")
    sure = there.to(points)
    if confidence is not None:
        sure = torch.where(there, confidence.to(points).nan_to_num(0.0), 0.0).clamp(0, 1)
    known = held(points.nan_to_num(0.0, 0.0, 0.0), sure)
    _check_size(known, height, width)
    if name not in COUNTS:
        raise InputError(f"{points.shape[1]} joints, layout {layout!r}; known are {', '.join(COUNTS)}")
    image = (known - points.new_tensor([width / 2, height / 2])) / height
    both = h36m(torch.cat([image, sure[..., None]], -1), name)
    return Poses(both[..., :2], both[..., 2])


def _check_size(known: Tensor, height: float, width: float) -> None:
    """Refuse people of less than a hundredth of the picture, whose points are hardly its pixels."""
    span = float((known.amax(1) - known.amin(1)).amax(-1).median())
    if span < 0.01 * max(height, width):
        raise InputError(
            f"the 2D poses span {span:.3g} px of a picture of {width:g} x {height:g} px; points are wanted in its pixels (for "
            "coordinates from 0 to 1 give pictures of 1 x 1)"
        )


def held(points: Float[Tensor, "T J 2"], sure: Float[Tensor, "T J"]) -> Float[Tensor, "T J 2"]:
    """Return points in which unseen ones stay where they were last seen (before their first sight, where they are then)."""
    seen = sure > 0
    if not bool(seen.any(0).all()):
        raise InputError(f"joints {(~seen.any(0)).nonzero()[:, 0].tolist()} are seen in no frame; a pose needs all of them")
    frames = torch.arange(len(points), device=points.device)[:, None]
    last = torch.where(seen, frames, -1).cummax(0).values
    first = seen.to(torch.int8).argmax(0)
    return points.gather(0, torch.where(last < 0, first, last)[..., None].expand(-1, -1, 2))


class ViTPose:
    """ViTPose (arXiv 2204.12484) as `transformers` has it, from a local folder with its configuration and weights.

    Args:
        path: folder of a `VitPoseForPoseEstimation` with COCO's 17 keypoints, or such a model.
        boxes: of the person, (T, 4) or (4,): left, top, width, height [px]; None: the whole picture.

    Raises:
        InputError: no such folder, files that are damaged or of another model, or no safetensors.

    Example::

        poses = ViTPose("models/vitpose-base-simple")(frames)
    """

    MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

    def __init__(self, path: Any, boxes: Tensor | None = None) -> None:
        from transformers import VitPoseForPoseEstimation

        if isinstance(path, str | Path):
            if not (Path(path) / "config.json").is_file():
                raise InputError(f"{path}: no folder with a ViTPose model (config.json and weights); save one there first")
            try:
                path = VitPoseForPoseEstimation.from_pretrained(path, local_files_only=True, use_safetensors=True)
            except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
                raise InputError(
                    f"{path}: could not be loaded as a ViTPose model ({' '.join(str(error).split())}); save it there "
                    "again, with safe_serialization=True"
                ) from error
        self.model, self.boxes = path.eval(), boxes

    @torch.no_grad()
    def __call__(self, frames: Float[Tensor, "T 3 H W"]) -> Poses:
        """Return the poses; heat maps are read at their highest point, moved by a quarter pixel towards the higher side."""
        count, _, height, width = frames.shape
        boxes = frames.new_tensor([0.0, 0.0, width, height]) if self.boxes is None else self.boxes.to(frames)
        boxes = boxes.expand(count, 4)
        rows, columns = self.model.config.backbone_config.image_size
        maps = self._maps(frames, boxes, rows, columns)
        places, sure = peaks(maps)
        size = places.new_tensor([maps.shape[-1], maps.shape[-2]])
        points = boxes[:, None, :2] + (places + 0.5) / size * boxes[:, None, 2:]
        return given(points, height, width, sure.clamp(0, 1), "coco")

    def _maps(self, frames: Tensor, boxes: Tensor, rows: int, columns: int) -> Tensor:
        height, width = frames.shape[-2:]
        u = (torch.arange(columns).to(frames) + 0.5) / columns
        v = (torch.arange(rows).to(frames) + 0.5) / rows
        x = (boxes[:, :1] + boxes[:, 2:3] * u) / width * 2 - 1
        y = (boxes[:, 1:2] + boxes[:, 3:4] * v) / height * 2 - 1
        grid = torch.stack([x[:, None].expand(-1, rows, -1), y[:, :, None].expand(-1, -1, columns)], -1)
        crops = torch.nn.functional.grid_sample(frames, grid, align_corners=False)
        mean, std = (frames.new_tensor(value)[:, None, None] for value in (self.MEAN, self.STD))
        options = {}
        if self.model.config.backbone_config.num_experts > 1:  # ViTPose++: the first expert is COCO's
            options = {"dataset_index": torch.zeros(len(frames), dtype=torch.long, device=frames.device)}
        parts = [self.model((part - mean) / std, **options).heatmaps for part in crops.split(16)]
        return torch.cat(parts)


def peaks(maps: Float[Tensor, "T J H W"]) -> tuple[Float[Tensor, "T J 2"], Float[Tensor, "T J"]]:
    """Return the places (column, row) and heights of heat maps' highest points."""
    height, index = maps.flatten(2).max(-1)
    width = maps.shape[-1]
    row, column = index // width, index % width

    def at(r: Tensor, c: Tensor) -> Tensor:
        inside = r.clamp(0, maps.shape[-2] - 1) * width + c.clamp(0, width - 1)
        return maps.flatten(2).gather(-1, inside[..., None])[..., 0]

    sideways = 0.25 * (at(row, column + 1) - at(row, column - 1)).sign()
    upright = 0.25 * (at(row + 1, column) - at(row - 1, column)).sign()
    return torch.stack([column + sideways, row + upright], -1), height


class MediaPipe:
    """MediaPipe's pose landmarker with a model file (``pose_landmarker_*.task``) that you bring; the package is optional.

    Raises:
        InputError: the package is not installed, or there is no such file.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            mediapipe: Any = import_module("mediapipe")  # optional, and no dependency
        except ImportError as error:
            raise InputError(
                "MediaPipe is not installed; pip install mediapipe, or give 2D poses or a ViTPose folder"
            ) from error
        if not Path(path).is_file():
            raise InputError(f"{path}: no such file; MediaPipe's pose landmarker needs its .task file")
        tasks = mediapipe.tasks
        options = tasks.vision.PoseLandmarkerOptions(base_options=tasks.BaseOptions(model_asset_path=str(path)))
        self.mediapipe, self.landmarker = mediapipe, tasks.vision.PoseLandmarker.create_from_options(options)

    def __call__(self, frames: Float[Tensor, "T 3 H W"]) -> Poses:
        """Return the poses, frame by frame; frames without a person are not seen."""
        height, width = frames.shape[-2:]
        found = torch.full((len(frames), 17, 3), float("nan"))
        for number, frame in enumerate((frames * 255).byte().permute(0, 2, 3, 1).cpu().numpy()):
            picture = self.mediapipe.Image(image_format=self.mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame))
            people = self.landmarker.detect(picture).pose_landmarks
            if people:
                found[number] = torch.tensor(
                    [[people[0][k].x * width, people[0][k].y * height, people[0][k].visibility] for k in MEDIAPIPE]
                )
        return given(found[..., :2], height, width, found[..., 2].nan_to_num(0.0), "coco")
