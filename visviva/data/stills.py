"""Clips that are still images: folders of frames, animated WebP and PNG. Read by Pillow; transparency is drawn over black."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from visviva.errors import InputError

STILLS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Endings of the images that a folder of frames may hold."""
ANIMATED = (".webp", ".apng", ".png")
"""Endings of animated images that are read as clips."""


def is_frame_folder(path: str | Path) -> bool:
    """Whether a folder directly holds at least two still images, and neither videos nor a list of clips."""
    path = Path(path)
    if not path.is_dir() or (path / "metadata.jsonl").exists():
        return False
    return len(_images(path)) >= 2 and not any(p.suffix.lower() in (".webp", ".mp4", ".mov", ".avi") for p in path.iterdir())


def read_stills(
    path: Path, max_frames: int | None, frame_rate: float | None, room: int
) -> tuple[list[np.ndarray], list[float]]:
    """Return the frames (H, W, 3), uint8, and their times [s] of a folder of frames or of an animated image.

    Args:
        room: memory that the frames may take [bytes].

    Raises:
        InputError: no images, frames of different sizes, no frame rate, or more than fits.
    """
    frames, times = _folder(path, max_frames, frame_rate, room) if path.is_dir() else _animation(path, max_frames, room)
    if len({frame.shape for frame in frames}) > 1:
        raise InputError(f"{path}: the frame size changes within the clip; bring the frames to one size")
    return frames, times


def _images(path: Path) -> list[Path]:
    """Return the images of a folder in the order of the numbers in their names (2 before 10)."""
    found = [p for p in path.iterdir() if p.suffix.lower() in STILLS and not p.name.startswith(".")]
    return sorted(found, key=lambda p: [(int(x), "") if x.isdigit() else (0, x) for x in re.split(r"(\d+)", p.name)])


def _folder(path: Path, most: int | None, rate: float | None, room: int) -> tuple[list[np.ndarray], list[float]]:
    from PIL import Image

    images = _images(path)[:most]
    if not images:
        raise InputError(f"{path}: the folder holds no frames ({', '.join(STILLS)}); name a folder of images, or a video")
    if rate is None or not 0 < rate < 1e5:
        raise InputError(f"{path}: a folder of frames does not know its rate; give its frames per second (--frame-rate)")
    frames: list[np.ndarray] = []
    for name in images:
        with Image.open(name) as image:
            frames.append(_pixels(image))
        _fits(path, frames, room)
    return frames, [k / rate for k in range(len(frames))]


def _animation(path: Path, most: int | None, room: int) -> tuple[list[np.ndarray], list[float]]:
    from PIL import Image

    frames: list[np.ndarray] = []
    times, now = [], 0.0
    with Image.open(path) as image:
        for k in range(min(getattr(image, "n_frames", 1), most or 10**9)):
            image.seek(k)
            frames.append(_pixels(image))
            times.append(now)
            now += float(image.info.get("duration") or 40.0) / 1000
            _fits(path, frames, room)
    return frames, times


def _pixels(image: object) -> np.ndarray:
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise InputError(f"{image!r} is no image")
    rgba = np.asarray(image.convert("RGBA"))
    return (rgba[..., :3].astype(np.uint16) * rgba[..., 3:] // 255).astype(np.uint8)


def _fits(path: Path, frames: list[np.ndarray], room: int) -> None:
    if len(frames) * frames[0].nbytes > room:
        raise InputError(
            f"{path}: more than {len(frames) - 1} frames of {frames[0].shape[1]}x{frames[0].shape[0]} pixels do not fit into "
            "the memory that is available; read fewer (--max-frames of 'visviva evaluate'), or reduce the frames"
        )
