"""What the force prompts of a clip command: the force over the mass of each of its objects, for `ForceResponse`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.models.control.force import Point
from visviva.physics.laws.force import commanded
from visviva.physics.tracks import tracks_of_masks

if TYPE_CHECKING:
    from visviva.configs.posttrain import Reward
    from visviva.physics.verify import Verifier
    from visviva.pipelines.posttrain.examples import Example, Examples


def force_of(example: Example) -> Float[Tensor, "N 2"] | None:
    """Return the commanded force over mass on each object of the true masks, y down; None where the data do not say it.

    A push acts on the object nearest to its point in the first frame. Strengths are the row's ``newtons``, one for each push;
    that of a single push does not matter. Masses are the row's ``mass_0``, ``mass_1``, ...; all alike where there are none.
    """
    pushes = [force for force in example.forces or [] if isinstance(force, Point)]
    given = example.row.get("newtons")
    strengths = given if isinstance(given, list) and len(given) == len(pushes) else [1.0] * len(pushes)
    known = example.forces is not None and len(pushes) == len(example.forces) and (len(pushes) < 2 or strengths is given)
    if example.masks is None or not known:
        return None
    count, height, width = example.masks.shape[1:]
    if not pushes:
        return torch.zeros(count, 2)
    points = torch.tensor([[[push.x * width - 0.5, (1 - push.y) * height - 0.5] for push in pushes]])
    angle = torch.tensor([[push.angle for push in pushes]]).deg2rad()
    forces = torch.tensor([strengths])[..., None] * torch.stack([angle.cos(), -angle.sin()], -1)
    masses = [example.row.get(f"mass_{i}") for i in range(count)]
    told = None if None in masses else torch.tensor([masses], dtype=torch.float32)
    return commanded(tracks_of_masks(example.masks[None, :2].float()), points, forces, told)[0]


def forces_of(examples: Sequence[Example]) -> Float[Tensor, "B N 2"] | None:
    """Return what is commanded of each clip's objects, padded to the most objects; None if it is not known of all."""
    found = [force_of(example) for example in examples]
    known = [force for force in found if force is not None]
    if len(known) < len(found):
        return None
    most = max(len(force) for force in known)
    return torch.stack([torch.cat([force, force.new_zeros(most - len(force), 2)]) for force in known])


def check_forces(reward: Reward, verifier: Verifier, examples: Examples) -> None:
    """Refuse a law of commanded forces where nothing is commanded, no object is known, or a part of the clip is judged."""
    needy = next((term.law.name for term in verifier.terms if "force" in term.law.needs), None)
    if needy is None:
        return
    if reward.mask_source not in ("track", "truth"):
        raise InputError(f"the law {needy!r} asks which object is pushed; set reward.mask_source to track or truth")
    if reward.window.frames is not None:
        raise InputError(f"the law {needy!r} judges a push from the beginning; leave reward.window.frames out")
    bare = next((row.get("file_name") for row in examples.clips.rows if "forces" not in row), None)
    if bare is not None:
        raise InputError(
            f"the law {needy!r} compares with commanded forces, and the clip {str(bare)!r} has none; give every row 'forces' "
            "(docs/forces.md), an empty list where nothing is pushed, or take the law out"
        )
