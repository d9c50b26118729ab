"""Bodies whose joints follow fewer coordinates, such as a knee whose axis wanders while it bends.

A `Body` of hinges and slides has the angles and displacements q; functions give them from the coordinates c,

    q = f(c),   q' = J c',   q'' = J c'' + f''(c) c'^2,   tau_c = J^T tau_q,   M_c = J^T M_q J,

with J the slopes of f: each number of q depends on one coordinate (of several, the functions would be of several variables).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from visviva.errors import InputError, closest
from visviva.physics.bodies.body import Body
from visviva.physics.bodies.curve import Curves


@dataclass(frozen=True)
class CoupledBody:
    """A body of hinges and slides that follow coordinates.

    Attributes:
        body: the tree; its configuration is q, its forces tau_q.
        names: of the coordinates c, nc of them.
        layers: functions from the coordinates to q, applied one after another.

    Raises:
        InputError: joints with quaternions, layers that do not fit.

    Example::

        tau = coupled.inverse_dynamics(c, v, a)  # (*batch, nc)
    """

    body: Body
    names: tuple[str, ...]
    layers: tuple[Curves, ...]

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if self.body.nq != self.body.nv:
            raise InputError("a body that follows coordinates has hinges, slides and welds only")
        sizes = [len(self.names), *(len(layer.source) for layer in self.layers)]
        fits = all(bool((layer.source < n).all()) for layer, n in zip(self.layers, sizes, strict=False))
        if not self.layers or sizes[-1] != self.body.nv or not fits:
            raise InputError(f"functions of {sizes} numbers do not lead from {sizes[0]} coordinates to {self.body.nv} joints")

    def to(self, *where: torch.device | torch.dtype | str) -> CoupledBody:
        """Return everything on a device, or in a dtype."""
        return replace(self, body=self.body.to(*where), layers=tuple(layer.to(*where) for layer in self.layers))

    def expand(self, c: Float[Tensor, "*batch nc"], v: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the body's configuration, velocity and acceleration, (*batch, nv) each.

        Raises:
            InputError: other numbers of coordinates than the body has, velocities or accelerations of another shape or dtype.
        """
        for name, x in (("coordinates", c), ("velocities", v), ("accelerations", a)):
            if x.shape[-1] != len(self.names):
                hint = "; transpose them" if x.ndim > 1 and x.shape[-2] == len(self.names) else ""
                raise InputError(
                    f"{x.shape[-1]} {name}; there are {len(self.names)} coordinates: {', '.join(self.names)}{hint}"
                )
            if x.dtype != self.body.mass.dtype:
                raise InputError(f"{name} in {x.dtype}, the body in {self.body.mass.dtype}; move one of them with .to")
            if x.shape != c.shape:
                raise InputError(f"{name} of the shape {tuple(x.shape)}, coordinates of {tuple(c.shape)}; give as many of each")
        for layer in self.layers:
            value, slope, bend = layer(c)
            speed = v[..., layer.source]
            c, v, a = value, slope * speed, slope * a[..., layer.source] + bend * speed.square()
        return c, v, a

    def slopes(self, c: Float[Tensor, "*batch nc"]) -> tuple[Float[Tensor, "*batch nv"], Int[Tensor, " nv"]]:
        """Return how each of the body's numbers changes with its coordinate, and the index of that."""
        slope, source = torch.ones_like(c), torch.arange(len(self.names), device=c.device)
        for layer in self.layers:
            c, own, _ = layer(c)
            slope, source = own * slope[..., layer.source], source[layer.source]
        return slope, source

    def jacobian(self, c: Float[Tensor, "*batch nc"]) -> Float[Tensor, "*batch nv nc"]:
        """Return ``J = dq/dc``."""
        slope, source = self.slopes(c)
        return slope[..., None] * torch.nn.functional.one_hot(source, len(self.names)).to(c)

    def inverse_dynamics(
        self,
        c: Float[Tensor, "*batch nc"],
        v: Float[Tensor, "*batch nc"],
        a: Float[Tensor, "*batch nc"],
        wrench: Float[Tensor, "*batch n 6"] | None = None,
    ) -> Float[Tensor, "*batch nc"]:
        """Return the generalised force of each coordinate, ``J^T tau``, of `visviva.physics.dynamics.inverse_dynamics`."""
        tau = self.body.inverse_dynamics(*self.expand(c, v, a), wrench)
        slope, source = self.slopes(c)
        return torch.zeros_like(c).index_add(-1, source, slope * tau)

    def mass_matrix(self, c: Float[Tensor, "*batch nc"]) -> Float[Tensor, "*batch nc nc"]:
        """Return ``J^T M J``."""
        zero = torch.zeros_like(c)
        jacobian = self.jacobian(c)
        return jacobian.mT @ self.body.mass_matrix(self.expand(c, zero, zero)[0]) @ jacobian

    def forward_dynamics(
        self,
        c: Float[Tensor, "*batch nc"],
        v: Float[Tensor, "*batch nc"],
        tau: Float[Tensor, "*batch nc"],
        wrench: Float[Tensor, "*batch n 6"] | None = None,
    ) -> Float[Tensor, "*batch nc"]:
        """Return the accelerations that forces cause; every coordinate must move a mass."""
        rest = tau - self.inverse_dynamics(c, v, torch.zeros_like(c), wrench)
        return torch.linalg.solve(self.mass_matrix(c), rest[..., None])[..., 0]

    def wrench(
        self,
        c: Float[Tensor, "*batch nc"],
        link: str,
        force: Float[Tensor, "*batch 3"],
        point: Float[Tensor, "*batch 3"],
        moment: Float[Tensor, "*batch 3"] | None = None,
    ) -> Float[Tensor, "*batch n 6"]:
        """Return what `inverse_dynamics` takes for a force at a point of the world that acts on a link.

        Args:
            c: coordinates.
            link: its name.
            force: [N]; ``point``: where it acts [m]; ``moment``: about that point, such as a plate's free moment [N m]; all in
                the world.

        Raises:
            InputError: no such link.
        """
        from visviva.physics.dynamics import place

        if link not in self.body.names:
            raise InputError(f"no link {link!r}{closest(link, self.body.names)}; `body.names` has all {len(self.body)}")
        index, zero = self.body.names.index(link), torch.zeros_like(c)
        at = place(self.body, self.expand(c, zero, zero)[0]).position[..., index, :]
        turning = torch.linalg.cross(point - at, force) + (0 if moment is None else moment)
        row = torch.cat([force, turning], -1)
        return (
            torch.nn.functional.one_hot(torch.tensor(index, device=row.device), len(self.body)).to(row)[:, None]
            * row[..., None, :]
        )
