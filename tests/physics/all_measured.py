"""Every law, and clips of which all that a law may read is measured."""

import torch

from visviva.physics import LAWS, ConstantAcceleration, Measurement
from visviva.physics.motions import draw

FORMS = [
    *[ConstantAcceleration(form=form) for form in ("object", "material", "eulerian", "centroid")],
    *[LAWS[name]() for name in LAWS if name != "constant_acceleration"],
]
LEAVES = ("flow", "masks", "features", "surprise")


def measured(law, frames=17, clips=2, contact=True, tracks=False):
    """All that a law may read of scenes that it is for; leaves that ask for a gradient."""
    scene = draw(getattr(law, "scenes", ("moves",))[0], clips, seed=3, frames=frames, size=32)
    drawn = scene.render()
    make = torch.Generator().manual_seed(0)
    seen = Measurement(
        fps=torch.full((clips,), 32.0),
        flow=drawn.flow,
        masks=drawn.masks.float(),
        features=torch.rand(clips, 2 * frames, 8, generator=make),
        surprise=torch.rand(clips, frames, generator=make),
        scale=torch.full((clips,), 0.02),
        noise=torch.full((clips,), 0.01),
        force=scene.force,
        contact=torch.zeros(clips, frames, dtype=torch.bool) if contact else None,
    )
    seen = seen.with_(tracks=seen.tracked(), masks=None, flow=None) if tracks else seen
    shaken = {key: getattr(seen, key) * 1.1 for key in LEAVES if getattr(seen, key) is not None}
    shaken = {key: value.requires_grad_() for key, value in shaken.items()}
    if tracks:
        leaves = {key: getattr(seen.tracks, key).clone().requires_grad_() for key in ("positions", "moments", "spin")}
        shaken["tracks"] = seen.tracks.with_(**leaves)
    return seen.with_(reference=seen, **shaken)
