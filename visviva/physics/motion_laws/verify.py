"""Weighted laws of motion: joints in; loss, residuals by name out. The same object is reward, guidance and metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.laws.law import Residual


@dataclass(frozen=True)
class MotionTerm:
    """A law of motion and its weight in the loss."""

    law: Any
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse weights that reward violations."""
        if not self.weight >= 0:
            raise InputError(f"the weight {self.weight} of the law {self.law.name!r} must be 0 or more")


@dataclass(frozen=True)
class MotionVerdict:
    """``loss`` (B,), the weighted sum; ``residuals`` by law, unweighted. A law that does not apply to a motion adds nothing."""

    loss: Tensor
    residuals: dict[str, Residual]


class MotionVerifier:
    """Holds joints against weighted laws, as `visviva.physics.verify.Verifier` holds frames.

    Args:
        terms: laws and weights; each law at most once.
        allow_trivial: permit laws that a frozen motion satisfies without an anchor (guidance of a sampler, whose noise moves).

    Raises:
        InputError: no terms, a law twice, a trivial law without an anchor.

    Example::

        verifier = MotionVerifier([MotionTerm(Skating()), MotionTerm(EulerLagrange()), MotionTerm(Liveliness())])
        verifier(joints, 20.0, lengths).loss.mean().backward()
    """

    def __init__(self, terms: Sequence[MotionTerm], allow_trivial: bool = False) -> None:
        self.terms = tuple(terms)
        names = [term.law.name for term in self.terms]
        if not names:
            raise InputError("a verifier without laws verifies nothing; give at least one term")
        if len(set(names)) < len(names):
            raise InputError(f"a law stands twice among {', '.join(names)}; give each once")
        trivial = [t.law.name for t in self.terms if t.law.trivial and t.weight > 0]
        if trivial and not any(t.law.anchor and t.weight > 0 for t in self.terms) and not allow_trivial:
            raise InputError(
                f"a frozen motion satisfies {' and '.join(map(repr, trivial))}; add the anchor 'liveliness', or say "
                "allow_trivial=True"
            )

    def __call__(
        self,
        joints: Float[Tensor, "*batch"],
        fps: float,
        lengths: Tensor | None = None,
        reference: Float[Tensor, "B T 22 3"] | None = None,
    ) -> MotionVerdict:
        """Return the verdict; differentiable with respect to the joints.

        Args:
            joints: z up [m]; ``fps``: of all.
            lengths: frames of each; None: all.
            reference: what anchors compare with.

        Raises:
            InputError: other than 22 joints, motions of one frame, lengths or a reference that do not fit.
        """
        if joints.ndim != 4 or joints.shape[2:] != (22, 3):
            raise InputError(f"joints of the shape {tuple(joints.shape)}; (motions, frames, 22, 3) is wanted")
        lengths = _lengths(joints, lengths)
        if reference is not None and reference.shape != joints.shape:
            raise InputError(
                f"a reference of the shape {tuple(reference.shape)} for joints {tuple(joints.shape)}; give the same"
            )
        found = {}
        for term in self.terms:
            given = {"reference": reference} if term.law.anchor and reference is not None else {}
            found[term.law.name] = term.law(joints, fps, lengths, **given)
        values = [t.weight * torch.where(found[t.law.name].valid, found[t.law.name].value, 0.0) for t in self.terms]
        return MotionVerdict(torch.stack(values).sum(0), found)


def _lengths(joints: Tensor, lengths: Tensor | None) -> Tensor:
    """The lengths of all motions, each 2 to as many frames as there are."""
    count = joints.shape[1]
    if count < 2:
        raise InputError(f"motions of {count} frame{'s' * (count != 1)} do not move; laws need 2 or more")
    if lengths is None:
        return torch.full((len(joints),), count, device=joints.device)
    if lengths.shape != joints.shape[:1] or bool(((lengths < 2) | (lengths > count)).any()):
        raise InputError(f"lengths {lengths.tolist()} of {len(joints)} motions; give one each, of 2 to {count} frames")
    return lengths.to(joints.device)
