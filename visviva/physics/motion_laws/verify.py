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

        verifier = MotionVerifier([MotionTerm(Skating()), MotionTerm(Liveliness())])
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
            InputError: other than 22 joints.
        """
        if joints.ndim != 4 or joints.shape[2:] != (22, 3):
            raise InputError(f"joints of the shape {tuple(joints.shape)}; (motions, frames, 22, 3) is wanted")
        if lengths is None:
            lengths = torch.full((len(joints),), joints.shape[1], device=joints.device)
        found = {}
        for term in self.terms:
            given = {"reference": reference} if term.law.anchor and reference is not None else {}
            found[term.law.name] = term.law(joints, fps, lengths, **given)
        values = [t.weight * torch.where(found[t.law.name].valid, found[t.law.name].value, 0.0) for t in self.terms]
        return MotionVerdict(torch.stack(values).sum(0), found)
