"""Probes: frozen networks and classical estimators that turn frames into measurements (`visviva.physics.Measurement`)."""

from visviva.models.probes.combined import Combined
from visviva.models.probes.dis import DIS
from visviva.models.probes.features import PatchFeatures, VAEFeatures, VJEPA2Features
from visviva.models.probes.flow import RAFT, FlowNetwork
from visviva.models.probes.lucas_kanade import LucasKanade
from visviva.models.probes.masks import TrackedMasks, track_masks
from visviva.models.probes.motion import MotionMasks
from visviva.models.probes.oracle import Oracle

PROBES: dict[str, type] = {
    probe.name: probe for probe in (LucasKanade, DIS, PatchFeatures, VAEFeatures, VJEPA2Features, Oracle)
}

__all__ = [
    "DIS",
    "PROBES",
    "RAFT",
    "Combined",
    "FlowNetwork",
    "LucasKanade",
    "MotionMasks",
    "Oracle",
    "PatchFeatures",
    "TrackedMasks",
    "VAEFeatures",
    "VJEPA2Features",
    "track_masks",
]
