"""Attention that knows of motion: queries and keys sheared by their difference over time, in any video backbone."""

from visviva.models.attention.forensics import Spectrum, measured_response, spectrum
from visviva.models.attention.momentum import MomentumAttention, momentum_attention, plain_attention
from visviva.models.attention.shear import depth_law, gain, response, shear, unshear

__all__ = [
    "MomentumAttention",
    "Spectrum",
    "depth_law",
    "gain",
    "measured_response",
    "momentum_attention",
    "plain_attention",
    "response",
    "shear",
    "spectrum",
    "unshear",
]
