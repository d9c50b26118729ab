"""The cross-estimator gate: a reward counts only as far as a probe that was not trained against sees the same.

Pixels can be shaped to fool one flow estimator (a change of 0.05 in 1 makes Lucas-Kanade read a whole pixel of motion
that is not there), but estimators of different kinds are fooled differently. The gate compares the velocities that two of
them give each object, ``d = median over frames of |v - v'|`` [px/frame], and multiplies the reward by
``exp(-max(d - floor, 0) / scale)``. The median, because OpenCV's DIS loses an object in single frames of honest clips; a
trick that fools one probe in fewer than half of the frames is not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.kinematics import object_velocity
from visviva.physics.laws.acceleration import moving
from visviva.physics.laws.law import Law
from visviva.physics.measurement import Measurement, Probe


@dataclass(frozen=True)
class Gate:
    """Disagreement of the verifier's flow with that of another probe, such as `visviva.models.probes.DIS`.

    Attributes:
        probe: the held-out estimator; used without gradient.
        scale: disagreement at which the reward is multiplied by 1/e [px/frame].
        floor: disagreement of honest clips, taken off first [px/frame]; the default is the 95th percentile on simulated clips.

    Example::

        verifier = Verifier(LucasKanade(), terms, gate=Gate(DIS()))
        verifier.score(frames, fps).reward  # (B,), low where the estimators disagree
    """

    probe: Probe
    scale: float = 0.1
    floor: float = 0.15

    def __post_init__(self) -> None:
        """Refuse a gate that cannot close."""
        if "flow" not in self.probe.measures:
            raise InputError(f"the gate compares flow, which the probe {self.probe.name!r} does not measure; give a flow probe")
        if self.scale <= 0 or self.floor < 0:
            raise InputError(
                f"the gate's scale {self.scale} must be positive and its floor {self.floor} not negative [px/frame]"
            )

    @torch.no_grad()
    def disagreement(self, measured: Measurement, frames: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, " B"]:
        """Return the distance of the two velocities [px/frame] of the objects (without masks: of whatever either sees move)."""
        if measured.flow is None:
            raise InputError("the gate compares flow, which was not measured; give the verifier a probe that measures flow")
        other = self.probe(frames.detach(), measured.fps).flow
        if other is None:
            raise InputError(f"the gate's probe {self.probe.name!r} measured no flow; give a flow probe")
        if measured.masks is not None:
            where = measured.masks[:, :-1].detach()
        else:
            where = torch.maximum(moving(measured.flow), moving(other))[:, :, None]
        apart, area = object_velocity(measured.flow.detach() - other, where)
        seen = torch.where(area >= 4, apart.norm(dim=-1), float("nan")).flatten(1)
        return torch.nan_to_num(seen.nanmedian(dim=1).values)

    def doubt(self, disagreement: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Return what is taken off the log of the reward: disagreement above the floor, over the scale."""
        return torch.relu(disagreement - self.floor) / self.scale


@dataclass(frozen=True)
class Gain:
    """How much better clips obey a law after a change, as two probes see it, each (B,).

    Attributes:
        trained: residual before minus after, seen by the probe that was trained against.
        held_out: the same, seen by the other probe.
    """

    trained: Tensor
    held_out: Tensor

    @property
    def confirmed(self) -> Tensor:
        """The smaller of the two gains where the trained probe sees one: what may be believed, shape (B,)."""
        return torch.where(self.trained > 0, torch.minimum(self.trained, self.held_out), self.trained)


def gain(law: Law, trained: tuple[Measurement, Measurement], held_out: tuple[Measurement, Measurement]) -> Gain:
    """Return the gain in a law from before to after, as the trained-against probe and a held-out probe measured both.

    Example::

        seen = gain(law, (lk(before), lk(after)), (dis(before), dis(after)))
        seen.confirmed.mean()  # at most what the held-out probe saw
    """
    by_trained, by_other = ((law(before).value - law(after).value).detach() for before, after in (trained, held_out))
    return Gain(by_trained, by_other)
