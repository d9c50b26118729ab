"""Pictures of clips for reports: side-by-side films, tracked overlays, flow and residual maps; bytes ready to embed."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from visviva.data.video import write_video
from visviva.eval.track import Track

TRAIL = 150
"""Positions of a track that are drawn before and after a frame."""
GAP = 4
"""Pixels between panels."""


def pixels(frames: Float[Tensor, "*T 3 H W"]) -> UInt8[Tensor, "*T 3 H W"]:
    """Return frames in [0, 1] as bytes; values that are not finite become black."""
    return (torch.nan_to_num(frames).clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def film(panels: Sequence[Tensor], fps: float, height: int = 192, crf: int = 23) -> bytes:
    """Return an H.264 film of the panels (T, 3, H, W), uint8, side by side, cut to the shortest.

    Panels are scaled to about ``height`` pixels, small ones by a whole factor.
    """
    count = min(len(p) for p in panels)
    first = _to_height(panels[0][:count], height)
    scaled = [first, *(_to_height(p[:count], first.shape[2], exact=True) for p in panels[1:])]
    bar = torch.full((count, 3, scaled[0].shape[2], GAP), 128, dtype=torch.uint8)
    joined = torch.cat([x for p in scaled for x in (p, bar)][:-1], dim=3)
    joined = joined[..., : joined.shape[2] // 2 * 2, : joined.shape[3] // 2 * 2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_video(path, joined, fps, crf)
        return path.read_bytes()


def _to_height(frames: Tensor, height: int, exact: bool = False) -> Tensor:
    import cv2

    factor = height / frames.shape[2]
    if factor >= 1.5 and (not exact or factor == round(factor)):
        return frames.repeat_interleave(round(factor), 2).repeat_interleave(round(factor), 3)
    size = (2 * round(frames.shape[3] * factor / 2), height if exact else 2 * round(height / 2))
    images = [cv2.resize(np.ascontiguousarray(f.permute(1, 2, 0).numpy()), size, interpolation=cv2.INTER_AREA) for f in frames]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def still(image: UInt8[Tensor, "3 H W"], height: int | None = None) -> bytes:
    """Return an image as JPEG (photographs) at the given height."""
    from PIL import Image

    scaled = image if height is None else _to_height(image[None], height)[0]
    raw = io.BytesIO()
    Image.fromarray(scaled.permute(1, 2, 0).contiguous().numpy()).save(raw, "JPEG", quality=82, optimize=True)
    return raw.getvalue()


def sheet(rows: Sequence[Sequence[Tensor]], height: int = 96) -> bytes:
    """Return rows of images (3, H, W), uint8, as one PNG with thin gaps, each ``height`` tall."""
    from PIL import Image

    lines = []
    for row in rows:
        scaled = [_to_height(i[None], height, exact=True)[0] for i in row]
        gap = torch.full((3, scaled[0].shape[1], GAP), 128, dtype=torch.uint8)
        lines.append(torch.cat([x for i in scaled for x in (i, gap)][:-1], dim=2))
    width = min(line.shape[2] for line in lines)
    between = torch.full((3, GAP, width), 128, dtype=torch.uint8)
    joined = torch.cat([x for line in lines for x in (line[..., :width], between)][:-1], dim=1)
    raw = io.BytesIO()
    picture = Image.fromarray(joined.permute(1, 2, 0).contiguous().numpy())
    picture.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(raw, "PNG", optimize=True)
    return raw.getvalue()


def flow_colours(flow: Float[Tensor, "2 H W"], fastest: float) -> UInt8[Tensor, "3 H W"]:
    """Return flow as colour: hue is direction, saturation is speed over ``fastest`` [px/frame]; white stands still."""
    import cv2

    dx, dy = torch.nan_to_num(flow).cpu().numpy()
    hue = (np.degrees(np.arctan2(dy, dx)) % 360) / 2
    saturation = np.clip(np.hypot(dx, dy) / max(fastest, 1e-6), 0, 1) * 255
    hsv = np.stack([hue, saturation, np.full_like(hue, 255)], axis=-1).astype(np.uint8)
    return torch.from_numpy(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)).permute(2, 0, 1)


def heat(field: Float[Tensor, "H W"], most: float) -> UInt8[Tensor, "3 H W"]:
    """Return a residual field as colour: black is zero, through red and yellow, white is ``most`` or more."""
    x = (torch.nan_to_num(field).float() / max(most, 1e-12)).clamp(0, 1)
    channels = [(3 * x).clamp(0, 1), (3 * x - 1).clamp(0, 1), (3 * x - 2).clamp(0, 1)]
    return (torch.stack(channels) * 255).to(torch.uint8)


@dataclass(frozen=True)
class Maps:
    """What to show of a clip besides its frames: flow (t, 2, H, W) [px/frame], residual field (s, H, W) or None."""

    frames: Tensor
    flow: Tensor
    field: Tensor | None


def map_rows(clips: Sequence[Maps], columns: int = 6) -> list[list[Tensor]]:
    """Return rows of pictures at a few moments, for each clip its frames, its flow and its residual field, on common colour
    scales."""
    fastest = max(_high(c.flow.norm(dim=1)) for c in clips)
    most = max((_high(c.field) for c in clips if c.field is not None), default=0.0)
    rows = []
    for clip in clips:
        last = len(clip.flow) if clip.field is None else min(len(clip.flow), len(clip.field))
        moments = np.linspace(0, last - 1, columns).round().astype(int)
        rows += [[clip.frames[k] for k in moments], [flow_colours(clip.flow[k], fastest) for k in moments]]
        if clip.field is not None:
            rows.append([heat(clip.field[k], most) for k in moments])
    return rows


def _high(values: Tensor) -> float:
    """Return a robust top: the 98th percentile of what is not next to zero in each frame, and of those the upper quartile."""
    tops = []
    for frame in torch.nan_to_num(values).float():
        known = frame[frame > 1e-3 * frame.max().clamp(min=1e-12)]
        if len(known):
            tops.append(float(known[:: max(1, len(known) // 100_000)].quantile(0.98)))
    return float(np.quantile(tops, 0.75)) if tops else 0.0


def overlay(
    frames: UInt8[Tensor, "T 3 h w"], track: Track, fitted: Sequence[int], longest: int = 400
) -> UInt8[Tensor, "T 3 _h _w"]:
    """Return the clip, reduced, with its track drawn on it: blue in the ``fitted`` frames, grey elsewhere, ringed.

    The frames may already be smaller than those that were tracked.
    """
    import cv2

    shrink = min(1.0, longest / max(frames.shape[2:]))
    size = tuple(2 * round(s * shrink / 2) for s in (frames.shape[3], frames.shape[2]))
    scale = size[0] / track.size[0]
    used, places = set(fitted), np.flatnonzero(track.seen)
    drawn = []
    for k, frame in enumerate(frames):
        image = cv2.resize(np.ascontiguousarray(frame.permute(1, 2, 0).numpy()), size, interpolation=cv2.INTER_AREA)
        turn, shift = track.camera.transforms[k][:, :2], track.camera.transforms[k][:, 2]
        for j in places[max(0, np.searchsorted(places, k) - TRAIL) : np.searchsorted(places, k) + TRAIL]:
            centre = _point(turn @ track.positions[j] + shift, scale)
            colour = (70, 130, 255) if j in used else (200, 200, 200)
            cv2.circle(image, centre, 2 if j <= k else 1, colour, -1, cv2.LINE_AA)
        if track.seen[k]:
            centre = _point(turn @ track.positions[k] + shift, scale)
            cv2.circle(
                image,
                centre,
                max(4, int(0.6 * np.nan_to_num(track.width[k], nan=8) * scale) + 2),
                (255, 70, 50),
                2,
                cv2.LINE_AA,
            )
        drawn.append(torch.from_numpy(image))
    return torch.stack(drawn).permute(0, 3, 1, 2)


def _point(position: NDArray[np.float64], scale: float) -> tuple[int, int]:
    return round(float(position[0]) * scale), round(float(position[1]) * scale)
