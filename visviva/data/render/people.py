"""Motions and bodies as figures: capsules along the bones of a skeleton, balls at markers, ellipsoids of a body's inertia."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.motions.anatomy import parts, split
from visviva.data.motions.axes import stature
from visviva.data.motions.motion import HumanMotion
from visviva.data.render.figure import Figure, together
from visviva.data.render.solids import balls, capsules, ellipsoids
from visviva.errors import InputError
from visviva.physics.bodies import Body
from visviva.physics.dynamics import place

COLOURS = {"left": (0.20, 0.42, 0.86), "right": (0.90, 0.58, 0.12), "": (0.45, 0.48, 0.54)}
"""Of the sides, sRGB: left blue, right amber, the trunk grey."""
ADULT = 1.70
"""Stature for which the radii are given [m]."""
RADII = {
    "hip": 0.075, "knee": 0.05, "ankle": 0.036, "heel": 0.03, "toe": 0.026, "shoulder": 0.047, "elbow": 0.037, "wrist": 0.027,
    "pelvis": 0.1, "neck": 0.05, "head": 0.05,
}  # fmt: skip
"""Of joints, by the part of the body that their names give [m]."""
TRUNK, OTHER, BALL, SKULL = 0.1, 0.022, 0.018, 0.095
"""Radii of joints between pelvis and neck, of other joints, of markers, and of the head [m]."""


def skeleton(motion: HumanMotion, thickness: float = 1.0) -> Figure:
    """Return capsules along the bones of a motion and a ball for its head; markers are balls.

    A capsule goes from a joint to its child, with the radius of each; its part has the child's name. The body's stature
    scales the radii.

    Args:
        motion: joints or markers.
        thickness: factor on the radii; 0.3 shows a stick figure.

    Raises:
        InputError: a thickness that is not positive.

    Example::

        pictures = render(skeleton(motion), view(motion, "side"))
    """
    if not thickness > 0:
        raise InputError(f"a thickness of {thickness:g}; it is positive, 1 is a body's")
    x, names = motion.positions.float(), motion.names
    size = thickness * stature(x, names)[0] / ADULT
    sides = x.new_tensor([COLOURS[split(name.removesuffix("_end"))[0]] for name in names])
    if not motion.bones:
        return balls(x, x.new_full((len(names),), size * BALL), sides, names)
    start, end = (list(column) for column in zip(*motion.bones, strict=True))
    radius = size * x.new_tensor(_radii(motion))
    radii = torch.stack((radius[start].minimum(3 * radius[end]), radius[end]), -1)  # a thin bone begins thin
    bones = capsules(x[:, start], x[:, end], radii, sides[end], [names[k] for k in end])
    skull = _skull(motion, SKULL * size)
    return together([bones, skull]) if skull is not None else bones


def _radii(motion: HumanMotion) -> list[float]:
    found = parts(motion.names)
    radii = [OTHER] * len(motion.names)
    if "neck" in found:
        above = motion.parents[found["neck"]]
        while above >= 0:
            radii[above], above = TRUNK, motion.parents[above]
    for part, joint in found.items():
        radii[joint] = RADII[part.removeprefix("left_").removeprefix("right_")]
    return radii


def _skull(motion: HumanMotion, radius: float) -> Figure | None:
    """A ball above the head's joint, along the neck."""
    found = parts(motion.names)
    if not {"neck", "head"} <= set(found):
        return None
    head, neck = (motion.positions[:, found[part]].float() for part in ("head", "neck"))
    way = head - neck
    top = head + 0.5 * radius * way / way.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    return balls(top[:, None], head.new_tensor([radius]), head.new_tensor([COLOURS[""]]), ["skull"])


def segments(body: Body, q: Float[Tensor, "T nq"]) -> Figure:
    """Return the segments of a body as ellipsoids of their mass and inertia: what dynamics knows of them, and no more.

    The ellipsoid of uniform density with a link's mass, centre and principal moments ``I`` has the semi-axes

        a_i = sqrt(5 (I_j + I_k - I_i) / (2 m))

    Links without mass or without extent are left out.

    Args:
        body: a person's with de Leva's masses, or any.
        q: configurations.

    Raises:
        InputError: configurations of another body, or none of its links has an extent.

    Example::

        body = body_of(motion, mass=70.0)
        pictures = render(segments(body, configurations(motion, body)), view(motion, "side"))
    """
    if q.ndim != 2 or q.shape[-1] != body.nq:
        raise InputError(f"configurations of the shape {tuple(q.shape)}; (frames, {body.nq}) is wanted for this body")
    placed = place(body, q)
    moments, axes = torch.linalg.eigh(body.inertia)
    axes = axes * torch.linalg.det(axes)[:, None, None]
    square = 2.5 * (moments.sum(-1, keepdim=True) - 2 * moments) / body.mass.clamp(min=1e-12)[:, None]
    half = square.clamp(min=0).sqrt()
    drawn = ((body.mass > 0) & (half > 1e-4).all(-1)).nonzero()[:, 0].tolist()
    if not drawn:
        raise InputError("no link of this body has mass and extent; there is nothing to draw")
    turn = placed.rotation[:, drawn]
    centre = placed.position[:, drawn] + (turn @ body.com[drawn][..., None].to(turn))[..., 0]
    names = [body.names[k] for k in drawn]
    colours = centre.new_tensor([COLOURS[split(name)[0]] for name in names])
    return ellipsoids(centre, turn @ axes[drawn].to(turn), half[drawn], colours, names)
