"""Ray-traced pictures of a batch of scenes: visibility by Newton's `SensorCamera`, shading by one Warp kernel.

The sensor gives, per ray, the distance, the surface normal and the shape that was hit; the kernel looks up the solid
texture at the hit point in the coordinates of that body and shades it with the scene's own light (Lambert over an
ambient term, linear RGB, encoded to sRGB). So every world has its own textures and light although the sensor knows one
light for all. No shadows are cast: the exact flow of a shadow is not the flow of the surface it falls on.

Each pixel is the mean of ``SAMPLES`` x ``SAMPLES`` rays; the ray through its centre gives depth and object.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from visviva.data.scenes.appearance import Texture
from visviva.data.scenes.dynamics import Motion
from visviva.data.scenes.scene import FIELD_OF_VIEW, LENS_SHIFT, Scene
from visviva.data.scenes.shading import shade

if TYPE_CHECKING:
    import newton

SAMPLES = 2
GRID = 4


@dataclass(frozen=True)
class Images:
    """``frames`` uint8 (B, T, H, W, 3) sRGB; ``depth`` float32 (B, T, H, W), distance along the view axis [m];
    ``label`` uint8 (B, T, H, W): index of the body seen at the pixel centre, or 255.
    """

    frames: np.ndarray
    depth: np.ndarray
    label: np.ndarray


def camera_rays(height: int, width: int) -> np.ndarray:
    """Directions (H, W, 3) of the pixel centres in the camera frame (x right, y up, looking along -z), unit length."""
    half = math.tan(FIELD_OF_VIEW / 2)
    x = ((np.arange(width) + 0.5) / width * 2 - 1) * half * width / height
    y = (1 - (np.arange(height) + 0.5) / height * 2) * half - 2 * half * LENS_SHIFT
    rays = np.stack(np.broadcast_arrays(x[None, :], y[:, None], -1.0), axis=-1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def render(scenes: Sequence[Scene], motion: Motion, height: int, width: int, model: newton.Model) -> Images:
    """Draw all frames of scenes of one layout; ``model`` is what `world.build` made of them."""
    stage = _Stage(scenes, height, width, model)
    shots = [stage.shoot(motion, t) for t in range(motion.position.shape[1])]
    frames, depth, label = (np.stack(part, axis=1) for part in zip(*shots, strict=True))
    return Images(frames, depth, label)


@dataclass(frozen=True)
class _Tile:
    """A rectangle of the image and its rays: SAMPLES x SAMPLES per pixel, and through the pixel centres."""

    rows: slice
    columns: slice
    fine: wp.array
    centre: wp.array


class _Stage:
    """Sensor, tiles, materials and output images of one batch.

    The camera and the background stand still. So after the first frame, in each world, only the tiles that a body
    touches, or touched in the frame before, are drawn again; the pictures are the same as if all were.
    """

    def __init__(self, scenes: Sequence[Scene], height: int, width: int, model: newton.Model) -> None:
        from newton.sensors import SensorCamera

        self.scenes, self.model, self.state, self.device = scenes, model, model.state(), model.device
        self.size = (height, width)
        self.sensor = SensorCamera(model, load_textures=False)
        self.per_world = model.shape_count // len(scenes)
        self.camera = np.array([_pose(scene) for scene in scenes], np.float32)
        self.tiles = self.split(GRID if self.device.is_cpu else 1)
        self.materials = self.material(scenes)
        self.light = self.array([[s.light.direction, s.light.colour, s.light.ambient] for s in scenes], wp.vec3f)
        self.image = wp.zeros((len(scenes), height, width, 3), dtype=wp.uint8, device=self.device)
        self.depth = wp.zeros((len(scenes), height, width), dtype=wp.float32, device=self.device)
        self.label = wp.zeros((len(scenes), height, width), dtype=wp.uint8, device=self.device)

    def array(self, values: object, dtype: type) -> wp.array:
        return wp.array(np.asarray(values, np.float32), dtype=dtype, device=self.device)

    def split(self, grid: int) -> list[_Tile]:
        height, width = self.size
        bundles = [camera_rays(height * k, width * k) for k in (SAMPLES, 1)]
        fine, centre = (np.stack([np.zeros_like(d), d], axis=2)[:, :, None] for d in bundles)
        rows, columns = (np.unique(np.linspace(0, n, grid + 1).astype(int)) for n in (height, width))
        tiles = []
        for i, i2 in itertools.pairwise(rows):
            for j, j2 in itertools.pairwise(columns):
                part = fine[i * SAMPLES : i2 * SAMPLES, j * SAMPLES : j2 * SAMPLES]
                rays = (self.array(np.ascontiguousarray(x), wp.vec3f) for x in (part, centre[i:i2, j:j2]))
                tiles.append(_Tile(slice(int(i), int(i2)), slice(int(j), int(j2)), *rays))
        return tiles

    def material(self, scenes: Sequence[Scene]) -> list[wp.array]:
        textures: list[Texture] = []
        for scene in scenes:
            own = [scene.floor, scene.wall, *([scene.ramp.texture] if scene.ramp else []), *(b.texture for b in scene.bodies)]
            textures += own + [own[-1]] * (self.per_world - len(own))
        return [
            self.array([t.waves for t in textures], wp.vec4f),
            self.array([t.amplitudes for t in textures], wp.vec4f),
            self.array([t.sharpness for t in textures], wp.float32),
            self.array([_linear(t.dark) for t in textures], wp.vec3f),
            self.array([_linear(t.bright) for t in textures], wp.vec3f),
        ]

    def shoot(self, motion: Motion, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pose = np.concatenate([motion.position[:, t], motion.quaternion[:, t][..., [1, 2, 3, 0]]], axis=-1)
        self.state.body_q.assign(pose.reshape(-1, 7).astype(np.float32))
        self.model.bvh_refit_shapes(self.state)
        boxes = [_pixel_boxes(self.scenes, motion.position[:, k], *self.size) for k in {t, max(t - 1, 0)}]
        for tile in self.tiles:
            worlds = (
                np.arange(len(self.scenes)) if t == 0 else np.flatnonzero(np.any([_touches(b, tile) for b in boxes], axis=0))
            )
            if len(worlds):
                self.draw(tile, worlds.astype(np.int32))
        return self.image.numpy().copy(), self.depth.numpy().copy(), self.label.numpy().copy()

    def draw(self, tile: _Tile, worlds: np.ndarray) -> None:
        sensor, model, count = self.sensor, self.model, len(worlds)
        camera, index = self.array(self.camera[worlds], wp.transformf), wp.array(worlds, dtype=wp.int32, device=self.device)
        (h, w), (fine_h, fine_w) = tile.centre.shape[:2], tile.fine.shape[:2]
        distance, normal = (
            sensor.allocate_image_depth(count, fine_w, fine_h),
            sensor.allocate_image_normal(count, fine_w, fine_h),
        )
        shape, seen = sensor.allocate_image_shape_index(count, fine_w, fine_h), sensor.allocate_image_shape_index(count, w, h)
        depth = sensor.allocate_image_depth_forward(count, w, h)
        images = {"depth_image": distance, "normal_image": normal, "shape_index_image": shape, "world_indices": index}
        sensor.update(self.state, camera, tile.fine, **images)
        centres = {"forward_depth_image": depth, "shape_index_image": seen, "world_indices": index}
        sensor.update(self.state, camera, tile.centre, **centres)
        inputs = [SAMPLES, tile.rows.start, tile.columns.start, index, tile.fine, camera, distance, normal, shape, depth, seen]
        inputs += [self.per_world, len(self.scenes[0].bodies), model.shape_transform, model.shape_body, self.state.body_q]
        inputs += [*self.materials, self.light]
        wp.launch(shade, dim=(count, h, w), inputs=inputs, outputs=[self.image, self.depth, self.label], device=self.device)


def _pixel_boxes(scenes: Sequence[Scene], position: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rectangles (B, N, 4) in pixels, left, top, right, bottom, around the bounding spheres of all bodies, one pixel wider."""
    reach = np.array([[body.radius for body in scene.bodies] for scene in scenes])
    camera = np.array([scene.camera.position for scene in scenes])[:, None]
    relative = position - camera
    focal = height / (2 * math.tan(FIELD_OF_VIEW / 2))
    scale = focal / (relative[..., 1] - reach)
    x, spread = width / 2 + focal * relative[..., 0] / relative[..., 1], reach * scale + 1
    y = height / 2 - height * LENS_SHIFT - focal * relative[..., 2] / relative[..., 1]
    slack = np.hypot(x - width / 2, y - height / 2 + height * LENS_SHIFT) * (reach / (relative[..., 1] - reach)) + spread
    return np.stack([x - slack, y - slack, x + slack, y + slack], axis=-1)


def _touches(boxes: np.ndarray, tile: _Tile) -> np.ndarray:
    across = (boxes[..., 2] >= tile.columns.start) & (boxes[..., 0] <= tile.columns.stop)
    return (across & (boxes[..., 3] >= tile.rows.start) & (boxes[..., 1] <= tile.rows.stop)).any(1)


def _pose(scene: Scene) -> tuple[float, ...]:
    turn = math.sqrt(0.5)  # rotation by +90 degrees about x: the camera's -z looks along +y, its y is up
    return (*scene.camera.position, turn, 0.0, 0.0, turn)


def _linear(colour: tuple[float, float, float]) -> tuple[float, ...]:
    return tuple(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
