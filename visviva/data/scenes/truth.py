"""Exact ground truth of rendered scenes: image-plane trajectories, optical flow with validity, masks, contact times.

Pixel coordinates: x right, y down, the centre of the top left pixel is (0, 0). Because the image plane is parallel to
the plane of motion, one metre there is ``metres_per_pixel`` everywhere, and a constant acceleration in space is a constant
acceleration in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from visviva.data.scenes.dynamics import Motion
from visviva.data.scenes.render import Images, camera_rays
from visviva.data.scenes.rotation import matrix
from visviva.data.scenes.scene import FIELD_OF_VIEW, LENS_SHIFT, Camera, Scene


def project(points: np.ndarray, camera: Camera, height: int, width: int) -> np.ndarray:
    """Project world points (..., 3) [m] to pixels (..., 2) as (x, y)."""
    half = math.tan(FIELD_OF_VIEW / 2)
    relative = np.asarray(points, np.float64) - np.array(camera.position)
    right, up = relative[..., 0] / relative[..., 1], relative[..., 2] / relative[..., 1]
    focal = height / (2 * half)
    return np.stack([width / 2 + focal * right - 0.5, height / 2 - focal * (up + 2 * half * LENS_SHIFT) - 0.5], axis=-1)


def unproject(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """World points (..., H, W, 3) [m] seen at depths (..., H, W) [m] along the view axis."""
    height, width = depth.shape[-2:]
    rays = camera_rays(height, width)
    rays = rays / -rays[..., 2:]
    local = rays * depth[..., None].astype(np.float64)
    world = np.stack([local[..., 0], -local[..., 2], local[..., 1]], axis=-1)
    return world + np.array(camera.position)


def metres_per_pixel(scene: Scene, height: int) -> np.ndarray:
    """Size of a pixel at the centre of mass of each body (N,) [m]; all bodies move in the plane y = 0."""
    return np.full(len(scene.bodies), scene.camera.view / height)


def flow(scene: Scene, motion: Motion, images: Images, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Flow (T-1, 2, H, W) [px/frame] from frame t to t+1 of scene ``index``, and where it is valid (T-1, H, W).

    Each pixel's point is moved with the body it lies on and projected again. Valid: the target lies in the image and is
    not hidden there by another surface.
    """
    label, depth = images.label[index], images.depth[index]
    frames, height, width = label.shape
    out = np.zeros((frames - 1, 2, height, width))
    valid = label[1:] == label[:-1]  # of the background: still background in the next frame
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    for t in range(frames - 1):
        points = unproject(depth[t], scene.camera)
        for body in range(len(scene.bodies)):
            here = label[t] == body
            if not here.any():
                continue
            moved = _carry(points[here], motion, index, body, t)
            target = project(moved, scene.camera, height, width)
            out[t][:, here] = (target - grid[here]).T
            valid[t][here] = _seen(target, moved[:, 1] - scene.camera.position[1], depth[t + 1], label[t + 1], body)
    return out.astype(np.float32), valid


def _carry(points: np.ndarray, motion: Motion, index: int, body: int, t: int) -> np.ndarray:
    first, then = (matrix(tuple(motion.quaternion[index, k, body].tolist())) for k in (t, t + 1))
    origin, end = (motion.position[index, k, body].astype(np.float64) for k in (t, t + 1))
    return (points - origin) @ first @ then.T + end


def _seen(target: np.ndarray, depth: np.ndarray, scene_depth: np.ndarray, label: np.ndarray, body: int) -> np.ndarray:
    height, width = label.shape
    x, y = np.rint(target[:, 0]).astype(int), np.rint(target[:, 1]).astype(int)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    other = scene_depth[y, x]
    return inside & ((label[y, x] == body) | (depth <= other + 1e-3 * depth))


def masks(images: Images, index: int, bodies: int) -> np.ndarray:
    """Visible mask of each body (T, N, H, W), bool."""
    return np.stack([images.label[index] == body for body in range(bodies)], axis=1)


def reversal(scene: Scene, motion: Motion, index: int, fps: float) -> tuple[float, ...]:
    """Times [s] at which a box on a ramp comes to rest and turns; constant acceleration does not hold across them."""
    if scene.ramp is None or scene.primitive != "ramp_up":
        return ()
    speed = motion.velocity[index, :, 0].astype(np.float64) @ scene.ramp.down
    turns = np.flatnonzero((speed[:-1] < 0) & (speed[1:] >= 0))
    return tuple(float((t + speed[t] / (speed[t] - speed[t + 1])) / fps) for t in turns)


def near(times: Sequence[float], frames: int, fps: float) -> np.ndarray:
    """True for the frames (T,) within one frame of a contact or reversal time."""
    frame = np.arange(frames)
    close = [np.abs(frame - time * fps) < 1.0 for time in times]
    return np.any(close, axis=0) if close else np.zeros(frames, bool)
