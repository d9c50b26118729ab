"""Drawn films for tests of tracking: a textured ball before a wall, with known positions."""

from __future__ import annotations

import cv2
import numpy as np
import torch


def wall(height: int, width: int, seed: int = 0, contrast: float = 40.0) -> np.ndarray:
    """A blurred random texture with some edges, float32 (H, W, 3)."""
    random = np.random.default_rng(seed)
    image = cv2.GaussianBlur(random.normal(0, 1, (height, width, 3)).astype(np.float32), (0, 0), 3)
    image = 110 + contrast * image / image.std()
    image[:, width // 3 : width // 3 + 3] -= 50
    image[height // 2 : height // 2 + 3] += 50
    return image.clip(0, 255)


def film(
    positions: np.ndarray,
    size: tuple[int, int] = (240, 320),
    radius: float = 9.0,
    colour: tuple[float, float, float] = (235, 220, 60),
    noise: float = 1.5,
    camera: np.ndarray | None = None,
    background: np.ndarray | None = None,
    blur: np.ndarray | None = None,
    seed: int = 0,
) -> torch.Tensor:
    """Return uint8 frames (T, 3, H, W) of an antialiased ball at sub-pixel positions (T, 2); NaN: no ball.

    ``camera``: shift of the picture per frame (T, 2) [px]; positions are given in the unshifted picture.
    ``blur``: displacement of the ball during the exposure (T, 2) [px].
    """
    height, width = size
    random = np.random.default_rng(seed + 1)
    still = wall(height, width, seed) if background is None else background
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    frames = []
    for k, position in enumerate(positions):
        image = still.copy()
        if np.isfinite(position).all():
            alpha = np.zeros((height, width), np.float32)
            for share in np.linspace(-0.5, 0.5, 9) if blur is not None else [0.0]:
                centre = position + (share * blur[k] if blur is not None else 0.0)
                distance = np.hypot(xs - centre[0], ys - centre[1])
                alpha += np.clip(radius - distance + 0.5, 0, 1) / (9 if blur is not None else 1)
            shade = 1 - 0.25 * np.clip((ys - position[1]) / radius, -1, 1)
            image = image * (1 - alpha[..., None]) + alpha[..., None] * np.array(colour, np.float32) * shade[..., None] * 0.85
        if camera is not None:
            move = np.float32([[1, 0, camera[k][0]], [0, 1, camera[k][1]]])
            image = cv2.warpAffine(image, move, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        frames.append((image + random.normal(0, noise, image.shape)).clip(0, 255).round().astype(np.uint8))
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def parabola(count: int, fps: float, start, velocity, gravity: float) -> tuple[np.ndarray, np.ndarray]:
    """Return positions (T, 2) [px] and times (T,) [s] of a throw; gravity [px/s^2], y down."""
    times = np.arange(count) / fps
    x = start[0] + velocity[0] * times
    y = start[1] + velocity[1] * times + gravity * times**2 / 2
    return np.stack([x, y], axis=1), times
