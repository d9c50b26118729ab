"""The Warp kernel that turns what the rays hit into colours: solid textures, one light per scene, sRGB.

Per pixel the mean over ``samples`` x ``samples`` rays of

    colour = albedo(p) * (light max(0, n . l) + ambient),     albedo(p) = mix(dark, bright, (1 + tanh(sharpness s(p))) / 2)

in linear RGB, with p the hit point in body coordinates and s as in `visviva.data.scenes.appearance`.
"""

# mypy: disable-error-code="operator,assignment,index,misc"
from __future__ import annotations

import warp as wp

NOTHING = wp.constant(wp.uint8(255))
"""Label of a pixel that shows no body."""


@wp.func
def _encode(x: float) -> float:
    x = wp.clamp(x, 0.0, 1.0)
    if x <= 0.0031308:
        return 12.92 * x
    return 1.055 * wp.pow(x, 1.0 / 2.4) - 0.055


@wp.kernel(enable_backward=False)
def shade(
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
    """Shade one tile (views, rows, columns) of the pictures of all worlds; see the formula above."""
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
    label[b, row + i, column + j] = NOTHING
    if seen >= 0:  # noqa: SIM102 (a Warp kernel evaluates both sides of `and`)
        if shape_body[seen] >= 0:
            label[b, row + i, column + j] = wp.uint8(shape_body[seen] - b * bodies_per_world)
