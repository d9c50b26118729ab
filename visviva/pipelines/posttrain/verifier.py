"""Build a `Verifier` from a recipe: laws by name, a probe by name, masks from where the recipe says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from visviva.configs import posttrain as settings
from visviva.errors import InputError, closest
from visviva.models.probes import (
    DIS,
    RAFT,
    Combined,
    FlowNetwork,
    LucasKanade,
    MotionMasks,
    Moving,
    TrackedMasks,
    VAEFeatures,
    VJEPA2Features,
)
from visviva.physics.laws import LAWS
from visviva.physics.verify import Term, Verifier

FLOWS: dict[str, Any] = {"lucas_kanade": LucasKanade, "dis": DIS, "flow_network": FlowNetwork, "raft": RAFT}


def build(
    laws: Sequence[settings.Law], probe: settings.Probe, vae: Any, *, allow_trivial: bool = False, device: Any = "cpu"
) -> Verifier:
    """Return the verifier of these laws; it expects masks to be passed in (see `object_masks`).

    Raises:
        InputError: an unknown law, option or probe, or laws that doing nothing satisfies without an anchor.
    """
    terms = [Term(law_of(law), law.weight) for law in laws]
    needed = frozenset().union(*(term.law.needs for term in terms))
    measured: Any = probe_of(probe, "features" in needed, vae, device)
    return Verifier(measured, terms, allow_trivial=allow_trivial)


def law_of(law: settings.Law) -> Any:
    """Return a law with its options."""
    if law.name not in LAWS:
        raise InputError(f"no law {law.name!r}; the laws are {', '.join(sorted(LAWS))}{closest(law.name, LAWS)}")
    return _constructed(LAWS[law.name], law.options, f"law {law.name}")


def probe_of(probe: settings.Probe, features: bool, vae: Any, device: Any = "cpu") -> Combined:
    """Return the probe: a flow estimator and, where a law needs them, appearance features."""
    if probe.flow not in FLOWS:
        raise InputError(f"no flow probe {probe.flow!r}; the flow probes are {', '.join(FLOWS)}{closest(probe.flow, FLOWS)}")
    flow = _constructed(FLOWS[probe.flow], probe.flow_options, f"flow probe {probe.flow}")
    return Combined(flow, features=_features(probe.features, features, vae, device))


def _features(name: str, needed: bool, vae: Any, device: Any) -> Any:
    if name == "none" or (name == "auto" and not needed):
        return None
    if name in ("auto", "vae"):
        return VAEFeatures(vae)
    if name.startswith("vjepa2:"):
        return VJEPA2Features(name.removeprefix("vjepa2:"), device=device)
    raise InputError(f"no feature probe {name!r}; give auto, none, vae, or vjepa2:PATH{closest(name, ['auto', 'none', 'vae'])}")


def _constructed(kind: Any, options: dict[str, Any], what: str) -> Any:
    try:
        return kind(**options)
    except TypeError as error:
        import inspect

        allowed = list(inspect.signature(kind).parameters)
        unknown = [o for o in options if o not in allowed]
        hint = f"unknown option {unknown[0]!r}{closest(unknown[0], allowed)}" if unknown else str(error)
        raise InputError(f"{what}: {hint}; its options are {', '.join(allowed) or 'none'}") from error


def object_masks(
    source: str, frames: Float[Tensor, "B T 3 H W"], true: Float[Tensor, "B T N H W"] | None
) -> Float[Tensor, "B T N H W"] | None:
    """Return the objects' masks in generated frames by source: "track", "motion", "objects", "truth" or "none".

    Raises:
        InputError: the source needs the true masks and there are none.
    """
    if source == "none":
        return None
    if source == "motion":
        return MotionMasks(objects=1 if true is None else true.shape[2])(frames, None)
    if source == "objects":
        return Moving(objects=1 if true is None else true.shape[2])(frames, None)
    if true is None:
        raise InputError(
            f"reward.mask_source is {source!r}, which needs the objects' true masks, but the clips have none; "
            "use 'motion' or 'objects' (found in the generated clip) or 'none' (whole frame)"
        )
    return TrackedMasks()(frames, true) if source == "track" else true
