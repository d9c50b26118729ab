"""Ray tracing on Warp: one thread per pixel and frame, the frames' triangles in one grouped tree, a second ray to the sun."""

# mypy: disable-error-code="operator,assignment,index,misc,attr-defined"
from __future__ import annotations

from collections.abc import Callable

import torch
import warp as wp
from torch import Tensor

from visviva.data.render.camera import NEAR, Camera, Size
from visviva.data.render.figure import Figure
from visviva.data.render.stage import Hits

FAR = 1.0e6
"""How deep rays reach [m]."""


@wp.kernel(enable_backward=False)
def _trace(
    mesh: wp.uint64,
    faces: int,
    pixel: wp.array[wp.int64],
    height: int,
    width: int,
    position: wp.array[wp.vec3f],
    rotation: wp.array[wp.mat33f],
    focal: float,
    centre: wp.vec2f,
    floor: float,
    has_floor: int,
    sun: wp.vec3f,
    frame: wp.array[wp.int64],
    direction: wp.array[wp.vec3f],
    depth: wp.array[float],
    face: wp.array[wp.int64],
    weights: wp.array[wp.vec3f],
    shadow: wp.array[wp.uint8],
) -> None:
    """Follow the ray of one pixel; its direction is one metre deep, so distances along it are depths."""
    k = wp.tid()
    at = int(pixel[k])
    t = at / (height * width)
    i, j = (at / width) % height, at % width
    root = wp.mesh_get_group_root(mesh, t)
    inside = wp.vec3f((float(j) + 0.5 - centre[0]) / focal, (float(i) + 0.5 - centre[1]) / focal, 1.0)
    ray = wp.transpose(rotation[t]) * inside
    ahead = FAR
    if has_floor != 0 and ray[2] < 0.0:
        ahead = wp.min(FAR, (floor - position[t][2]) / ray[2])
    hit = wp.mesh_query_ray(mesh, position[t] + NEAR * ray, ray, ahead - NEAR, root)
    frame[k] = wp.int64(t)
    direction[k] = ray
    shadow[k] = wp.uint8(0)
    face[k] = wp.int64(-1)
    if hit.result:
        depth[k] = hit.t + NEAR
        face[k] = wp.int64(hit.face - t * faces)
        weights[k] = wp.vec3f(hit.u, hit.v, 1.0 - hit.u - hit.v)
    elif ahead < FAR:
        depth[k] = ahead
        if wp.mesh_query_ray_anyhit(mesh, position[t] + ahead * ray, sun, FAR, root):
            shadow[k] = wp.uint8(1)
    else:
        depth[k] = wp.INF


def tracer(figure: Figure, camera: Camera, floor: float | None, sun: Tensor) -> Callable[[Size, Tensor], Hits]:
    """Return what follows rays: of pictures of a size those of the pixels with these indices in (T, H, W).

    Args:
        figure: in float32.
        camera: of as many frames, on the same device.
        floor: its height, or None.
        sun: unit vector to it.
    """
    wp.init()
    frames, count, _ = figure.vertices.shape
    shift = count * torch.arange(frames, device=figure.faces.device)
    corners = (figure.faces + shift[:, None, None]).to(torch.int32).flatten().contiguous()
    group = torch.arange(frames, device=corners.device, dtype=torch.int32).repeat_interleave(len(figure.faces))
    points = wp.from_torch(figure.vertices.reshape(-1, 3).contiguous(), dtype=wp.vec3f)
    mesh = wp.Mesh(points, wp.from_torch(corners), groups=wp.from_torch(group))
    position = wp.from_torch(camera.position.contiguous(), dtype=wp.vec3f)
    rotation = wp.from_torch(camera.rotation.contiguous(), dtype=wp.mat33f)

    def follow(size: Size, pixel: Tensor) -> Hits:
        hits = _empty(pixel)
        inputs = [mesh.id, len(figure.faces), wp.from_torch(pixel), *size, position, rotation, camera.focal(size)]
        inputs += [wp.vec2f(camera.centre[0] * size[1], camera.centre[1] * size[0]), floor or 0.0, int(floor is not None)]
        inputs += [wp.vec3f(*sun.tolist())]
        outputs = [wp.from_torch(hits.frame), wp.from_torch(hits.ray, dtype=wp.vec3f), wp.from_torch(hits.depth)]
        outputs += [wp.from_torch(hits.face), wp.from_torch(hits.weights, dtype=wp.vec3f)]
        outputs += [wp.from_torch(hits.shadow.view(torch.uint8))]
        wp.launch(_trace, dim=len(pixel), inputs=inputs, outputs=outputs, device=mesh.device)
        return hits

    return follow


def _empty(pixel: Tensor) -> Hits:
    """Room for the answers to so many rays."""
    whole, real = torch.empty_like(pixel), torch.empty((len(pixel), 7), device=pixel.device, dtype=torch.float32)
    ray, weights, depth = (part.contiguous() for part in real.split((3, 3, 1), -1))
    return Hits(whole, ray, depth[:, 0], torch.empty_like(pixel), weights, torch.empty_like(pixel, dtype=torch.bool))
