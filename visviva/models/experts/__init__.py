"""Sparse experts whose residual stream has momentum, and experts that are told which physics a clip shows."""

from visviva.models.experts.alignment import Annotation, alignment, on_tokens
from visviva.models.experts.branch import PhysicalBlock, parts_of, physics_experts, plain_blocks
from visviva.models.experts.dynamics import AdamDynamics, Descent, HeavyBall, RobustMomentum
from visviva.models.experts.prophy import FineAlignment, RefinementExperts, SemanticExperts, coarse_alignment
from visviva.models.experts.sparse import SparseExperts, balance
from visviva.models.experts.specialisation import Specialisation, specialisation

__all__ = [
    "AdamDynamics",
    "Annotation",
    "Descent",
    "FineAlignment",
    "HeavyBall",
    "PhysicalBlock",
    "RefinementExperts",
    "RobustMomentum",
    "SemanticExperts",
    "SparseExperts",
    "Specialisation",
    "alignment",
    "balance",
    "coarse_alignment",
    "on_tokens",
    "parts_of",
    "physics_experts",
    "plain_blocks",
    "specialisation",
]
