"""Ray-traced pictures of a batch of scenes: visibility by Newton's `SensorCamera`, shading by one Warp kernel.

The sensor gives, per ray, the distance, the surface normal and the shape that was hit; the kernel looks up the solid
texture at the hit point in the coordinates of that body and shades it with the scene's own light (Lambert over an
ambient term, linear RGB, encoded to sRGB). So every world has its own textures and light although the sensor knows one
light for all. No shadows are cast: the exact flow of a shadow is not the flow of the surface it falls on.

Each pixel is the mean of ``SAMPLES`` x ``SAMPLES`` rays; the ray through its centre gives depth and object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from visviva.data.scenes.appearance import Texture
from visviva.data.scenes.dynamics import Motion
from visviva.data.scenes.primitives import FIELD_OF_VIEW, LENS_SHIFT, Scene, radius

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


@wp.func
def _encode(x: float) -> float:
    x = wp.clamp(x, 0.0, 1.0)
    if x <= 0.0031308:
        return 12.92 * x
    return 1.055 * wp.pow(x, 1.0 / 2.4) - 0.055


@wp.kernel(enable_backward=False)
def _shade(
    samples: int,
    row: int,
    column: int,
    world: wp.array[int],
    rays: wp.array4d[wp.vec3f],
    camera: wp.array[wp.transformf],
    distance: wp.array3d[float],
    normal: wp.array3d[wp.vec3f],
    shape: wp.array3d[wp.uint32],
    centre_depth: wp.array3d[float],
    centre_shape: wp.array3d[wp.uint32],
    shapes_per_world: int,
    bodies_per_world: int,
    shape_pose: wp.array[wp.transformf],
    shape_body: wp.array[int],
    body_pose: wp.array[wp.transformf],
    waves: wp.array2d[wp.vec4f],
    amplitudes: wp.array[wp.vec4f],
    sharpness: wp.array[float],
    dark: wp.array[wp.vec3f],
    bright: wp.array[wp.vec3f],
    light: wp.array2d[wp.vec3f],
    image: wp.array4d[wp.uint8],
    depth: wp.array3d[float],
    label: wp.array3d[wp.uint8],
) -> None:
    view, i, j = wp.tid()
    b = world[view]
    total = wp.vec3f(0.0, 0.0, 0.0)
    for si in range(samples):
        for sj in range(samples):
            y, x = i * samples + si, j * samples + sj
            hit = int(shape[view, y, x])
            if hit >= 0:
                direction = wp.transform_vector(camera[view], rays[y, x, 0, 1])
                point = wp.transform_point(camera[view], rays[y, x, 0, 0]) + direction * distance[view, y, x]
                body = shape_body[hit]
                local = point
                if body >= 0:
                    local = wp.transform_point(wp.transform_inverse(body_pose[body]), point)
                elif hit - b * shapes_per_world >= 2:
                    local = wp.transform_point(wp.transform_inverse(shape_pose[hit]), point)
                s = float(0.0)  # noqa: UP018 (a Warp variable, not a constant)
                for k in range(4):
                    w = waves[hit, k]
                    s += amplitudes[hit][k] * wp.sin(w[0] * local[0] + w[1] * local[1] + w[2] * local[2] + w[3])
                mix = 0.5 + 0.5 * wp.tanh(sharpness[hit] * s)
                albedo = dark[hit] * (1.0 - mix) + bright[hit] * mix
                facing = wp.max(0.0, wp.dot(normal[view, y, x], light[b, 0]))
                total += wp.cw_mul(albedo, light[b, 1] * facing + light[b, 2])
    total = total / float(samples * samples)
    for c in range(3):
        image[b, row + i, column + j, c] = wp.uint8(_encode(total[c]) * 255.0 + 0.5)
    depth[b, row + i, column + j] = centre_depth[view, i, j]
    seen = int(centre_shape[view, i, j])
    label[b, row + i, column + j] = wp.uint8(255)
    if seen >= 0:
        if shape_body[seen] >= 0:
            label[b, row + i, column + j] = wp.uint8(shape_body[seen] - b * bodies_per_world)


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
        for i, i2 in zip(rows[:-1], rows[1:], strict=True):
            for j, j2 in zip(columns[:-1], columns[1:], strict=True):
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
            worlds = np.arange(len(self.scenes)) if t == 0 else np.flatnonzero(np.any([_touches(b, tile) for b in boxes], axis=0))
            if len(worlds):
                self.draw(tile, worlds.astype(np.int32))
        return self.image.numpy().copy(), self.depth.numpy().copy(), self.label.numpy().copy()

    def draw(self, tile: _Tile, worlds: np.ndarray) -> None:
        sensor, model, count = self.sensor, self.model, len(worlds)
        camera, index = self.array(self.camera[worlds], wp.transformf), wp.array(worlds, dtype=wp.int32, device=self.device)
        (h, w), (fine_h, fine_w) = tile.centre.shape[:2], tile.fine.shape[:2]
        distance, normal = sensor.allocate_image_depth(count, fine_w, fine_h), sensor.allocate_image_normal(count, fine_w, fine_h)
        shape, seen = sensor.allocate_image_shape_index(count, fine_w, fine_h), sensor.allocate_image_shape_index(count, w, h)
        depth = sensor.allocate_image_depth_forward(count, w, h)
        images = {"depth_image": distance, "normal_image": normal, "shape_index_image": shape, "world_indices": index}
        sensor.update(self.state, camera, tile.fine, **images)
        centres = {"forward_depth_image": depth, "shape_index_image": seen, "world_indices": index}
        sensor.update(self.state, camera, tile.centre, **centres)
        inputs = [SAMPLES, tile.rows.start, tile.columns.start, index, tile.fine, camera, distance, normal, shape, depth, seen]
        inputs += [self.per_world, len(self.scenes[0].bodies), model.shape_transform, model.shape_body, self.state.body_q]
        inputs += [*self.materials, self.light]
        wp.launch(_shade, dim=(count, h, w), inputs=inputs, outputs=[self.image, self.depth, self.label], device=self.device)


def _pixel_boxes(scenes: Sequence[Scene], position: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rectangles (B, N, 4) in pixels, left, top, right, bottom, around the bounding spheres of all bodies, one pixel wider."""
    reach = np.array([[radius(body) for body in scene.bodies] for scene in scenes])
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
