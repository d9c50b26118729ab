"""Sparse experts whose residual stream has momentum, and experts that are told which physics a clip shows."""

from visviva.models.experts.dynamics import AdamDynamics, Descent, HeavyBall, RobustMomentum
from visviva.models.experts.sparse import SparseExperts, balance

__all__ = ["AdamDynamics", "Descent", "HeavyBall", "RobustMomentum", "SparseExperts", "balance"]
