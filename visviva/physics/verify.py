"""The verifier: one probe, weighted laws, anchors and a gate. Frames in; loss, score and named diagnostics out.

The same object is the reward of post-training (``verifier(...)`` carries gradient to the frames), the guidance of a
sampler (the same call on the predicted clean sample) and a metric (``verifier.score(...)``, no gradient).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.gate import Gate
from visviva.physics.laws.law import Law, Residual
from visviva.physics.measurement import Measurement, Probe, check_frames

UNMEASURED = 20.0
"""What a law that could not be measured takes off the log of the reward: no evidence, no reward."""

BROUGHT = frozenset({"masks", "contact", "reference", "tracks", "scale", "force"})
"""What may come with the clip instead of from the probe; tracks are derived from masks where there are masks."""


@dataclass(frozen=True)
class Term:
    """A law and its weight in the loss."""

    law: Law
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse weights that reward violations."""
        if not self.weight >= 0:
            raise InputError(f"the weight {self.weight} of the law {self.law.name!r} must be 0 or more")


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of a batch of clips.

    Attributes:
        loss: weighted sum of the residuals, shape (B,); lower is better. A law that does not apply to a clip adds nothing.
        residuals: by law name, unweighted.
        diagnostics: by name, each (B,), detached: see `Verifier.diagnose`.
        doubt: what the gate takes off the log of the reward, shape (B,); zeros without a gate.
        unmeasured: how many of the weighted laws that a frozen clip satisfies could not be measured, shape (B,), such as the
            acceleration of an object that blinks. The loss cannot say so (it carries gradient); ranking does.
    """

    loss: Tensor
    residuals: dict[str, Residual]
    diagnostics: dict[str, Tensor]
    doubt: Tensor
    unmeasured: Tensor

    @property
    def valid(self) -> Tensor:
        """Where every law applied and could be measured, shape (B,), bool."""
        return torch.stack([residual.valid for residual in self.residuals.values()]).all(0)

    @property
    def log_reward(self) -> Tensor:
        """``-loss - doubt - UNMEASURED unmeasured``, shape (B,), detached: what to rank clips by; higher is better."""
        return -self.loss.detach() - self.doubt - UNMEASURED * self.unmeasured

    @property
    def reward(self) -> Tensor:
        """``exp(log_reward)``, in [0, 1], shape (B,), detached; higher is better."""
        return self.log_reward.exp()


class Verifier:
    """Measures clips with one probe and holds them against weighted laws.

    Args:
        probe: what measures the frames.
        terms: laws and weights; each law at most once.
        gate: compares the probe with one that is not trained against; enters ``reward``, not ``loss``.
        allow_trivial: permit laws that a frozen or empty clip satisfies without an anchor (evaluation, ablation).

    Raises:
        InputError: no terms; a law twice; a law that needs what the probe does not measure; a trivial law alone.

    Example::

        verifier = Verifier(LucasKanade(), [Term(ConstantAcceleration()), Term(MotionFloor(least=0.3), 2.0)])
        verdict = verifier(frames, torch.full((len(frames),), 30.0))
        verdict.loss.mean().backward()
    """

    def __init__(self, probe: Probe, terms: Sequence[Term], gate: Gate | None = None, allow_trivial: bool = False) -> None:
        self.probe, self.terms, self.gate = probe, tuple(terms), gate
        names = [term.law.name for term in self.terms]
        if not names:
            raise InputError("a verifier without laws verifies nothing; give at least one term")
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"the law {name!r} stands twice among the terms; give each law once, or use two verifiers")
        for law in (term.law for term in self.terms):
            lacking = law.needs - probe.measures - BROUGHT
            if lacking:
                raise InputError(
                    f"the law {law.name!r} needs {', '.join(sorted(lacking))}, but the probe {probe.name!r} measures only "
                    f"{', '.join(sorted(probe.measures))}; combine it with another probe (visviva.models.probes.Combined)"
                )
        held = any(term.law.anchor and term.weight > 0 for term in self.terms)
        trivial = [term.law.name for term in self.terms if term.law.trivial and term.weight > 0]
        if trivial and not held and not allow_trivial:
            raise InputError(
                f"a frozen or empty clip satisfies {' and '.join(map(repr, trivial))}; add an anchor (motion_floor, "
                "mass_conservation or reference_flow) with a positive weight, or say allow_trivial=True"
            )

    @property
    def differentiable(self) -> bool:
        """Whether the loss carries gradient to the frames."""
        return self.probe.differentiable

    def measure(
        self,
        frames: Float[Tensor, "B T 3 H W"],
        fps: Float[Tensor, " B"],
        masks: Float[Tensor, "B t N H W"] | Bool[Tensor, "B t N H W"] | None = None,
        contact: Bool[Tensor, "B T"] | None = None,
        reference: Measurement | None = None,
        force: Float[Tensor, "B N 2"] | None = None,
    ) -> Measurement:
        """Measure frames with the probe and join what is known beside it.

        ``masks``: the objects' masks in every frame, or in the first frame only for a probe that follows them.
        ``contact``: frames within contact windows. ``reference``: the measured paired clip; it carries no gradient.
        ``force``: the commanded force over mass on each object.
        """
        check_frames(frames, fps, values=False)  # the probe looks at them
        measured = self.probe(frames, fps, masks.to(frames.dtype) if masks is not None else None)
        if contact is not None:
            measured = measured.with_(contact=contact)
        if force is not None:
            measured = measured.with_(force=force)
        return measured.with_(reference=reference.detach()) if reference is not None else measured

    def __call__(
        self,
        frames: Float[Tensor, "B T 3 H W"],
        fps: Float[Tensor, " B"],
        masks: Float[Tensor, "B t N H W"] | Bool[Tensor, "B t N H W"] | None = None,
        contact: Bool[Tensor, "B T"] | None = None,
        reference: Measurement | None = None,
        force: Float[Tensor, "B N 2"] | None = None,
    ) -> Verdict:
        """Return the verdict with a loss that carries gradient to the frames; arguments as in `measure`.

        Raises:
            InputError: the probe is not differentiable (use `score`), or a law lacks its reference.
        """
        if not self.differentiable:
            raise InputError(f"the probe {self.probe.name!r} carries no gradient to the frames; use verifier.score instead")
        return self.judge(self.measure(frames, fps, masks, contact, reference, force), frames)

    @torch.no_grad()
    def score(
        self,
        frames: Float[Tensor, "B T 3 H W"],
        fps: Float[Tensor, " B"],
        masks: Float[Tensor, "B t N H W"] | Bool[Tensor, "B t N H W"] | None = None,
        contact: Bool[Tensor, "B T"] | None = None,
        reference: Measurement | None = None,
        force: Float[Tensor, "B N 2"] | None = None,
    ) -> Verdict:
        """Return the same verdict without gradient; any probe will do."""
        return self.judge(self.measure(frames, fps, masks, contact, reference, force), frames)

    def judge(self, measured: Measurement, frames: Float[Tensor, "B T 3 H W"] | None = None) -> Verdict:
        """Return the verdict on quantities that are already measured; the gate needs the frames."""
        residuals = {term.law.name: term.law(measured) for term in self.terms}
        loss = torch.stack([term.weight * residuals[term.law.name].value for term in self.terms]).sum(0)
        diagnostics = self.diagnose(measured)
        doubt = torch.zeros_like(loss.detach())
        if self.gate is not None and frames is not None:
            diagnostics["disagreement"] = self.gate.disagreement(measured, frames)
            doubt = self.gate.doubt(diagnostics["disagreement"])
        doubtful = [t.law.name for t in self.terms if t.law.trivial and t.weight > 0]
        unmeasured = torch.stack([torch.zeros_like(doubt), *(1.0 - residuals[n].valid.to(doubt) for n in doubtful)]).sum(0)
        return Verdict(loss, residuals, diagnostics, doubt, unmeasured)

    @staticmethod
    @torch.no_grad()
    def diagnose(measured: Measurement) -> dict[str, Tensor]:
        """Return what to watch for collapse, each (B,): the numbers a reward hack moves first.

        ``motion_energy``: mean of |flow|^2 [(px/frame)^2]. ``object_area``: mean share of the image that masks cover.
        ``object_area_change``: masks' area in the last quarter of the frames over that in the first frame, minus 1.
        ``iou``: mean intersection over union with the reference's masks, where both were measured; two empty masks agree.
        """
        found: dict[str, Tensor] = {}
        if measured.flow is not None:
            found["motion_energy"] = measured.flow.square().sum(2).flatten(1).mean(1)
        if measured.masks is not None:
            area = measured.masks.sum((2, 3, 4)) / (measured.masks.shape[-2] * measured.masks.shape[-1])
            late = area[:, -max(1, area.shape[1] // 4) :].mean(1)
            found["object_area"] = area.mean(1)
            found["object_area_change"] = late / area[:, 0].clamp(min=1e-6) - 1
        reference = measured.reference
        if measured.masks is not None and reference is not None and reference.masks is not None:
            found["iou"] = iou(measured.masks > 0.5, reference.masks > 0.5).mean((1, 2))
        return found


def iou(one: Bool[Tensor, "*D H W"], two: Bool[Tensor, "*D H W"]) -> Float[Tensor, "*D"]:
    """Return the intersection over union of hard masks; 1 where both are empty."""
    joint, either = (one & two).sum((-2, -1)), (one | two).sum((-2, -1))
    return torch.where(either == 0, 1.0, joint / either.clamp(min=1))
