"""Optical flow by networks: the project's own small one, and RAFT with torchvision's public weights."""

from visviva.models.probes.flow.network import RAFT, FlowNetwork
from visviva.models.probes.flow.pyramid import FlowPyramid
from visviva.models.probes.flow.raft import RAFTNetwork, load_raft

__all__ = ["RAFT", "FlowNetwork", "FlowPyramid", "RAFTNetwork", "load_raft"]
