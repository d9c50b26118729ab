"""What is drawn: triangles whose corners move, with colours, and named parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from visviva.errors import InputError

SKIN = (0.72, 0.74, 0.78)
"""Colour of a mesh of which nothing is said, sRGB."""


@dataclass(frozen=True)
class Figure:
    """A triangle mesh over time.

    Attributes:
        vertices: (T, V, 3) [m], z up.
        faces: corners of the triangles, (F, 3), counter-clockwise seen from outside.
        colours: of the vertices, (V, 3), sRGB in [0, 1].
        part: which of ``names`` each face belongs to, (F,).
        names: of the parts.

    Raises:
        InputError: shapes that do not fit, vertices that are not finite, faces of vertices that are not there.

    Example::

        ball = Figure.mesh(vertices, faces, colour=(0.9, 0.3, 0.2))  # (T, V, 3), (F, 3)
        pictures = render(ball, camera, (256, 256))
    """

    vertices: Float[Tensor, "T V 3"]
    faces: Int[Tensor, "F 3"]
    colours: Float[Tensor, "V 3"]
    part: Int[Tensor, " F"]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.vertices.ndim != 3 or self.vertices.shape[-1] != 3 or not self.vertices.numel():
            raise InputError(f"vertices of the shape {tuple(self.vertices.shape)}; (frames, vertices, 3) is wanted")
        count = self.vertices.shape[1]
        if self.faces.ndim != 2 or self.faces.shape[-1] != 3 or not len(self.faces):
            raise InputError(f"faces of the shape {tuple(self.faces.shape)}; (triangles, 3), at least one, is wanted")
        if tuple(self.colours.shape) != (count, 3) or tuple(self.part.shape) != (len(self.faces),):
            raise InputError(
                f"colours of the shape {tuple(self.colours.shape)} and parts of {tuple(self.part.shape)} for {count} vertices "
                f"and {len(self.faces)} faces; ({count}, 3) and ({len(self.faces)},) are wanted"
            )
        bad = ~self.vertices.isfinite().all(-1)
        if bool(bad.any()):
            frame, vertex = bad.nonzero()[0].tolist()
            raise InputError(
                f"{int(bad.sum())} vertices of the mesh are not finite, the first is vertex {vertex} in frame {frame}; "
                "cut or fill these frames"
            )
        if int(self.faces.min()) < 0 or int(self.faces.max()) >= count:
            raise InputError(f"faces name vertex {int(self.faces.max())} (or a negative one); there are {count}")
        if int(self.part.min()) < 0 or int(self.part.max()) >= len(self.names):
            raise InputError(f"faces name part {int(self.part.max())} (or a negative one); there are {len(self.names)} names")

    def __len__(self) -> int:
        return len(self.vertices)

    @classmethod
    def mesh(
        cls,
        vertices: Float[Tensor, "*T V 3"],
        faces: Int[Tensor, "F 3"],
        colour: Sequence[float] | Tensor = SKIN,
        name: str = "mesh",
    ) -> Figure:
        """Return any mesh as a figure of one part.

        Args:
            vertices: (T, V, 3), or (V, 3) of one frame [m], z up.
            faces: (F, 3).
            colour: sRGB, of all or (V, 3) of each vertex.
            name: of the part.
        """
        vertices = vertices[None] if vertices.ndim == 2 else vertices
        colours = torch.as_tensor(colour).to(vertices).expand(vertices.shape[-2], 3)
        return cls(vertices, faces.long(), colours, torch.zeros_like(faces[:, 0]).long(), (name,))

    @property
    def normals(self) -> Float[Tensor, "T V 3"]:
        """Unit normals of the vertices: means over their faces, weighted by area; zero where a vertex has no area."""
        corners = self.vertices[:, self.faces]
        area = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
        total = torch.zeros_like(self.vertices)
        for corner in range(3):
            total = total.index_add(1, self.faces[:, corner], area)
        return total / total.norm(dim=-1, keepdim=True).clamp(min=1e-20)

    def cut(self, start: int, stop: int) -> Figure:
        """Return the frames from ``start`` to before ``stop``."""
        return replace(self, vertices=self.vertices[start:stop])

    def to(self, *where: torch.device | str) -> Figure:
        """Return the figure on a device."""
        moved = {name: getattr(self, name).to(*where) for name in ("vertices", "faces", "colours", "part")}
        return replace(self, **moved)

    def ground(self, share: float = 0.05) -> float:
        """Return a height for the floor: that of the lowest vertex, undercut in ``share`` of the frames [m]."""
        return float(self.vertices[..., 2].amin(1).quantile(share))


def together(figures: Sequence[Figure]) -> Figure:
    """Return several figures of equally many frames as one, with the parts of all in their order.

    Raises:
        InputError: none, or different numbers of frames.
    """
    if len({len(figure) for figure in figures}) != 1:
        raise InputError(f"figures of {[len(figure) for figure in figures]} frames; at least one, all equally long, are wanted")
    points = [0, *torch.tensor([figure.vertices.shape[1] for figure in figures]).cumsum(0).tolist()]
    parts = [0, *torch.tensor([len(figure.names) for figure in figures]).cumsum(0).tolist()]
    return Figure(
        torch.cat([figure.vertices for figure in figures], 1),
        torch.cat([figure.faces + shift for figure, shift in zip(figures, points, strict=False)]),
        torch.cat([figure.colours for figure in figures]),
        torch.cat([figure.part + shift for figure, shift in zip(figures, parts, strict=False)]),
        tuple(name for figure in figures for name in figure.names),
    )
