"""Probes: frozen networks and classical estimators that turn frames into measurements (`visviva.physics.Measurement`)."""

from visviva.models.probes.combined import Combined
from visviva.models.probes.dis import DIS
from visviva.models.probes.features import PatchFeatures, VAEFeatures, VJEPA2Features
from visviva.models.probes.flow import RAFT, FlowNetwork
from visviva.models.probes.lucas_kanade import LucasKanade
from visviva.models.probes.masks import TrackedMasks, track_masks
from visviva.models.probes.motion import MotionMasks
from visviva.models.probes.objects import Identity, Moving, Objects, Points, SAM2Masks, object_tracks, track_points
from visviva.models.probes.oracle import Oracle
from visviva.models.probes.surprise import Extrapolation, VJEPA2Surprise

PROBES: dict[str, type] = {
    probe.name: probe
    for probe in (LucasKanade, DIS, FlowNetwork, RAFT, PatchFeatures, VAEFeatures, VJEPA2Features, Objects, Points, Oracle)
}

__all__ = [
    "DIS",
    "PROBES",
    "RAFT",
    "Combined",
    "Extrapolation",
    "FlowNetwork",
    "Identity",
    "LucasKanade",
    "MotionMasks",
    "Moving",
    "Objects",
    "Oracle",
    "PatchFeatures",
    "Points",
    "SAM2Masks",
    "TrackedMasks",
    "VAEFeatures",
    "VJEPA2Features",
    "VJEPA2Surprise",
    "object_tracks",
    "track_masks",
    "track_points",
]
