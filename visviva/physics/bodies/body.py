"""An articulated body: a tree of rigid links with joints, masses and inertias. Arrays in, arrays out, batched.

Configuration, velocity and force are laid out as MuJoCo does, link after link:

| joint | q | v | force |
|---|---|---|---|
| free | position, quaternion (w, x, y, z) | velocity in the world, spin in the link | force in the world, moment in the link |
| ball | quaternion (w, x, y, z) | spin relative to the parent, in the link's frame | moment in the link's frame |
| hinge | angle [rad] | rate [rad/s] | moment about the axis [N m] |
| slide | displacement [m] | rate [m/s] | force along the axis [N] |
| weld | nothing | nothing | nothing |

Moments are about the link's origin, where its joint is. Only roots may be free; their position is in the world, displaced by
the link's offset.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError

JOINTS = {"free": (7, 6), "ball": (4, 3), "hinge": (1, 1), "slide": (1, 1), "weld": (0, 0)}
"""Kinds of joints, with the numbers that they take in configuration and velocity."""


@dataclass(frozen=True)
class Body:
    """A tree of n rigid links.

    Attributes:
        names: of the links, n of them.
        parents: index of each link's parent, -1 for the world; parents come before their children.
        joints: kind of the joint that ties each link to its parent: free, ball, hinge, slide or weld.
        offset: where the link's origin (its joint) is in the parent's frame, (n, 3) [m].
        rest: rotation of the link in the parent's frame at the zero configuration, (n, 3, 3).
        axis: of hinges and slides in the link's frame, unit vectors, (n, 3); others are not looked at.
        mass: (n,) [kg].
        com: centre of mass in the link's frame, (n, 3) [m].
        inertia: about the centre of mass, in the link's frame, (n, 3, 3) [kg m^2].
        gravity: (3,) [m/s^2]; None: 9.81 downwards, z up.
        armature: rotor inertia added to the diagonal of the mass matrix per velocity, (nv,) [kg m^2 or kg]; None: none.

    Raises:
        InputError: shapes that do not fit, an unknown joint, a parent after its child, a negative mass, an inertia that no
            mass distribution has, an axis of no length.

    Example::

        pendulum = Body(
            names=("arm",), parents=(-1,), joints=("hinge",), offset=torch.zeros(1, 3), rest=torch.eye(3)[None],
            axis=torch.tensor([[0.0, 1.0, 0.0]]), mass=torch.ones(1), com=torch.tensor([[0.0, 0.0, -1.0]]),
            inertia=torch.zeros(1, 3, 3),
        )
        pendulum.inverse_dynamics(torch.tensor([0.3]), torch.zeros(1), torch.zeros(1))  # 9.81 sin 0.3 N m
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    joints: tuple[str, ...]
    offset: Tensor
    rest: Tensor
    axis: Tensor
    mass: Tensor
    com: Tensor
    inertia: Tensor
    gravity: Tensor | None = None
    armature: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse what is no body."""
        count = len(self.names)
        if not count or len(self.parents) != count or len(self.joints) != count:
            raise InputError(
                f"a body of {count} names, {len(self.parents)} parents and {len(self.joints)} joints; give one of each per link"
            )
        for name, shape in SHAPES.items():
            found = tuple(getattr(self, name).shape)
            if found != (count, *shape):
                raise InputError(f"the body's {name} has the shape {found}; {(count, *shape)} is wanted for {count} links")
            if not bool(getattr(self, name).isfinite().all()):
                raise InputError(
                    f"the body's {name} is not finite for the links {self._links(~getattr(self, name).isfinite())}"
                )
        for index, (name, parent, joint) in enumerate(zip(self.names, self.parents, self.joints, strict=True)):
            if joint not in JOINTS:
                raise InputError(f"link {name!r}: unknown joint {joint!r}; allowed are {', '.join(JOINTS)}")
            if not -1 <= parent < index:
                raise InputError(
                    f"link {name!r} ({index}): its parent is {parent}; parents come before their children, -1 is the world"
                )
            if joint == "free" and parent != -1:
                raise InputError(f"link {name!r} has a free joint below link {parent}; only roots (parent -1) are free")
        if bool((self.mass < 0).any()):
            raise InputError(f"negative mass of {self._links(self.mass < 0)}; masses are 0 or more")
        self._check_inertia()
        turning = torch.tensor([joint in ("hinge", "slide") for joint in self.joints], device=self.axis.device)
        short = turning & ((self.axis.norm(dim=-1) - 1).abs() > 1e-4)
        if bool(short.any()):
            raise InputError(f"the axis of {self._links(short)} is no unit vector; divide it by its length")

    def _check_inertia(self) -> None:
        size = self.inertia.abs().amax((-2, -1)).clamp(min=1e-12)
        skew = (self.inertia - self.inertia.mT).abs().amax((-2, -1)) > 1e-5 * size
        principal = torch.linalg.eigvalsh(self.inertia.double())
        bad = skew | (principal[:, 0] < -1e-6 * size) | (principal[:, 0] + principal[:, 1] < principal[:, 2] - 1e-3 * size)
        if bool(bad.any()):
            raise InputError(
                f"the inertia of {self._links(bad)} is none of a rigid body: symmetric, positive and with no principal moment "
                "larger than the sum of the other two"
            )

    def _links(self, which: Tensor) -> str:
        return ", ".join(repr(self.names[i]) for i in sorted(set(which.nonzero()[:, 0].tolist())))

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        size = f"{len(self)} links, {self.nq} coordinates, {self.nv} velocities, {self.total_mass:.4g} kg"
        return f"Body({size}, {self.mass.dtype} on {self.mass.device})"

    @cached_property
    def nq(self) -> int:
        """Numbers of a configuration."""
        return sum(JOINTS[joint][0] for joint in self.joints)

    @cached_property
    def nv(self) -> int:
        """Degrees of freedom."""
        return sum(JOINTS[joint][1] for joint in self.joints)

    @cached_property
    def total_mass(self) -> float:
        """Sum of the masses [kg]."""
        return float(self.mass.sum())

    @property
    def down(self) -> Tensor:
        """Gravity, (3,) [m/s^2]."""
        return self.mass.new_tensor([0.0, 0.0, -9.81]) if self.gravity is None else self.gravity.to(self.mass)

    def to(self, *where: torch.device | torch.dtype | str) -> Body:
        """Return the body on a device, or in a dtype."""
        moved = {name: getattr(self, name).to(*where) for name in SHAPES}
        for name in ("gravity", "armature"):
            value = getattr(self, name)
            moved[name] = None if value is None else value.to(*where)
        return replace(self, **moved)

    def neutral(self, *batch: int) -> Float[Tensor, "*batch nq"]:
        """Return the zero configuration: everything at its rest."""
        parts = [
            self.mass.new_tensor(
                [0.0] * (JOINTS[j][0] - 4) + [1.0, 0.0, 0.0, 0.0] if j in ("free", "ball") else [0.0] * JOINTS[j][0]
            )
            for j in self.joints
        ]
        return torch.cat(parts).expand(*batch, -1).clone()

    def inverse_dynamics(
        self,
        q: Float[Tensor, "*batch nq"],
        v: Float[Tensor, "*batch nv"],
        a: Float[Tensor, "*batch nv"],
        wrench: Float[Tensor, "*batch n 6"] | None = None,
        method: str = "torch",
    ) -> Float[Tensor, "*batch nv"]:
        """Return the generalised forces that make the body move so: see `visviva.physics.dynamics.inverse_dynamics`."""
        from visviva.physics.dynamics import inverse_dynamics

        return inverse_dynamics(self, q, v, a, wrench, method)

    def forward_dynamics(
        self,
        q: Float[Tensor, "*batch nq"],
        v: Float[Tensor, "*batch nv"],
        tau: Float[Tensor, "*batch nv"],
        wrench: Float[Tensor, "*batch n 6"] | None = None,
        method: str = "torch",
    ) -> Float[Tensor, "*batch nv"]:
        """Return the accelerations that forces cause: see `visviva.physics.dynamics.forward_dynamics`."""
        from visviva.physics.dynamics import forward_dynamics

        return forward_dynamics(self, q, v, tau, wrench, method)

    def mass_matrix(self, q: Float[Tensor, "*batch nq"], method: str = "torch") -> Float[Tensor, "*batch nv nv"]:
        """Return the mass matrix: see `visviva.physics.dynamics.mass_matrix`."""
        from visviva.physics.dynamics import mass_matrix

        return mass_matrix(self, q, method)


SHAPES: dict[str, tuple[int, ...]] = {
    "offset": (3,),
    "rest": (3, 3),
    "axis": (3,),
    "mass": (),
    "com": (3,),
    "inertia": (3, 3),
}
"""Shapes of the tensors of a body, per link."""
