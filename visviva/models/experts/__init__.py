"""Sparse experts whose residual stream has momentum, and experts that are told which physics a clip shows."""

from visviva.models.experts.branch import PhysicalBlock, parts_of, physics_experts, plain_blocks
from visviva.models.experts.dynamics import AdamDynamics, Descent, HeavyBall, RobustMomentum
from visviva.models.experts.prophy import FineAlignment, RefinementExperts, SemanticExperts, coarse_alignment, purity
from visviva.models.experts.sparse import SparseExperts, balance

__all__ = [
    "AdamDynamics",
    "Descent",
    "FineAlignment",
    "HeavyBall",
    "PhysicalBlock",
    "RefinementExperts",
    "RobustMomentum",
    "SemanticExperts",
    "SparseExperts",
    "balance",
    "coarse_alignment",
    "parts_of",
    "physics_experts",
    "plain_blocks",
    "purity",
]
