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
from visviva.data.scenes.primitives import FIELD_OF_VIEW, LENS_SHIFT, Scene
from visviva.data.scenes.world import statics

if TYPE_CHECKING:
    import newton

SAMPLES = 2
NOTHING = 255


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
    rays: wp.array4d[wp.vec3f],
    camera: wp.array[wp.transformf],
    distance: wp.array3d[float],
    normal: wp.array3d[wp.vec3f],
    shape: wp.array3d[wp.uint32],
    shapes_per_world: int,
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
) -> None:
    b, i, j = wp.tid()
    total = wp.vec3f(0.0, 0.0, 0.0)
    for si in range(samples):
        for sj in range(samples):
            y, x = i * samples + si, j * samples + sj
            hit = int(shape[b, y, x])
            if hit >= 0:
                direction = wp.transform_vector(camera[b], rays[y, x, 0, 1])
                point = wp.transform_point(camera[b], rays[y, x, 0, 0]) + direction * distance[b, y, x]
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
                facing = wp.max(0.0, wp.dot(normal[b, y, x], light[b, 0]))
                total += wp.cw_mul(albedo, light[b, 1] * facing + light[b, 2])
    total = total / float(samples * samples)
    for c in range(3):
        image[b, i, j, c] = wp.uint8(_encode(total[c]) * 255.0 + 0.5)


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


class _Stage:
    """Sensor, rays, materials and output buffers of one batch."""

    def __init__(self, scenes: Sequence[Scene], height: int, width: int, model: newton.Model) -> None:
        from newton.sensors import SensorCamera

        self.model, self.state, self.device = model, model.state(), model.device
        self.count, self.height, self.width = len(scenes), height, width
        self.sensor = SensorCamera(model, load_textures=False)
        self.first_body = statics(scenes[0])
        self.per_world = model.shape_count // len(scenes)
        self.bodies = len(scenes[0].bodies)
        self.camera = wp.array([_pose(scene) for scene in scenes], dtype=wp.transformf, device=self.device)
        self.fine, self.coarse = (self.rays(height * SAMPLES, width * SAMPLES), self.rays(height, width))
        self.materials = self.material(scenes)
        self.light = self.array([[s.light.direction, s.light.colour, s.light.ambient] for s in scenes], wp.vec3f)
        sensor, h, w = self.sensor, height * SAMPLES, width * SAMPLES
        self.distance = sensor.allocate_image_depth(self.count, w, h)
        self.normal = sensor.allocate_image_normal(self.count, w, h)
        self.shape = sensor.allocate_image_shape_index(self.count, w, h)
        self.depth = sensor.allocate_image_depth_forward(self.count, width, height)
        self.centre = sensor.allocate_image_shape_index(self.count, width, height)
        self.image = wp.zeros((self.count, height, width, 3), dtype=wp.uint8, device=self.device)

    def array(self, values: object, dtype: type) -> wp.array:
        return wp.array(np.asarray(values, np.float32), dtype=dtype, device=self.device)

    def rays(self, height: int, width: int) -> wp.array:
        directions = camera_rays(height, width)
        bundle = np.stack([np.zeros_like(directions), directions], axis=2)[:, :, None]
        return self.array(bundle, wp.vec3f)

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
        sensor, state = self.sensor, self.state
        sensor.update(
            state, self.camera, self.fine, depth_image=self.distance, normal_image=self.normal, shape_index_image=self.shape
        )
        sensor.update(state, self.camera, self.coarse, forward_depth_image=self.depth, shape_index_image=self.centre)
        model = self.model
        inputs = [
            SAMPLES,
            self.fine,
            self.camera,
            self.distance,
            self.normal,
            self.shape,
            self.per_world,
            model.shape_transform,
        ]
        inputs += [model.shape_body, state.body_q, *self.materials, self.light]
        dim = (self.count, self.height, self.width)
        wp.launch(_shade, dim=dim, inputs=inputs, outputs=[self.image], device=self.device)
        return self.image.numpy().copy(), self.depth.numpy().copy(), self.label()

    def label(self) -> np.ndarray:
        index = self.centre.numpy().astype(np.int64)
        body = self.model.shape_body.numpy()
        worlds = np.arange(self.count)[:, None, None]
        inside = index < len(body)
        owner = np.where(inside, body[np.where(inside, index, 0)], -1)
        return np.where(owner >= 0, owner - worlds * self.bodies, NOTHING).astype(np.uint8)


def _pose(scene: Scene) -> tuple[float, ...]:
    turn = math.sqrt(0.5)  # rotation by +90 degrees about x: the camera's -z looks along +y, its y is up
    return (*scene.camera.position, turn, 0.0, 0.0, turn)


def _linear(colour: tuple[float, float, float]) -> tuple[float, ...]:
    return tuple(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour)
