"""The same pictures through PyTorch3D's rasteriser, where that package is installed; the shadow is a flat figure."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from visviva.data.render.camera import NEAR, Camera, Size
from visviva.data.render.figure import Figure
from visviva.data.render.stage import Hits
from visviva.errors import InputError

HOW = (
    "it has no package for current Pythons on the index, so build it from its source with the torch that you have: "
    "pip install --no-build-isolation 'git+https://github.com/facebookresearch/pytorch3d.git'; or leave backend='warp'"
)


def pytorch3d(module: str) -> ModuleType:
    """Return a module of PyTorch3D; an `InputError` says how to get it where it is missing."""
    try:
        return importlib.import_module(f"pytorch3d.{module}")
    except ImportError as error:
        raise InputError(
            f"backend 'pytorch3d' needs the package pytorch3d, which cannot be imported ({error}); {HOW}"
        ) from error


def tracer(figure: Figure, camera: Camera, floor: float | None, sun: Tensor) -> Callable[[Size, Tensor], Hits]:
    """Return what follows rays: as `visviva.data.render.tracing.tracer`, but it draws all pixels for those asked for."""

    def follow(size: Size, pixel: Tensor) -> Hits:
        face, depth, weights = _rasterized(figure.vertices, figure.faces, camera, size)
        ray = camera.rays(size)
        shadow = torch.zeros_like(face, dtype=torch.bool)
        if floor is not None:
            down = ray[..., 2]
            ahead = torch.where(down < 0, (floor - camera.position[:, 2, None, None]) / down, torch.inf)
            bare = ahead < depth
            depth, face = torch.where(bare, ahead, depth), torch.where(bare, -1, face)
            height = figure.vertices[..., 2:] - floor
            flat = figure.vertices - height.clamp(min=0) / sun[2] * sun
            shadow = (_rasterized(flat, figure.faces, camera, size)[0] >= 0) & (face < 0) & depth.isfinite()
        flatly = (x.flatten(0, 2)[pixel] for x in (ray, depth, face, weights, shadow))
        return Hits(pixel // (size[0] * size[1]), *flatly)

    return follow


def _rasterized(vertices: Tensor, faces: Tensor, camera: Camera, size: Size) -> tuple[Tensor, Tensor, Tensor]:
    """Face (-1: none), depth and weights of the pixels; PyTorch3D's picture has x left, y up, its shorter side from -1 to 1."""
    inside = camera.seen(vertices)
    z = inside[..., 2:]
    pixels = inside[..., :2] / torch.where(z.abs() < 1e-6, 1e-6, z) * camera.focal(size)
    shift = pixels.new_tensor([(camera.centre[0] - 0.5) * size[1], (camera.centre[1] - 0.5) * size[0]])
    screen = torch.cat((-(pixels + shift) * (2 / min(size)), z), -1)
    meshes = pytorch3d("structures").Meshes(screen, faces.expand(len(screen), -1, -1))
    face, depth, weights, _ = pytorch3d("renderer.mesh.rasterize_meshes").rasterize_meshes(
        meshes, image_size=size, faces_per_pixel=1, perspective_correct=True, z_clip_value=NEAR, cull_backfaces=False
    )
    face, depth, weights = face[..., 0], depth[..., 0], weights[..., 0, :]
    first = len(faces) * torch.arange(len(screen), device=face.device)[:, None, None]
    return torch.where(face < 0, -1, face - first), torch.where(face < 0, torch.inf, depth), weights.clamp(min=0)
