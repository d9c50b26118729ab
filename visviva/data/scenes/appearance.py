"""Solid textures and light: smooth procedural patterns in an object's own coordinates, so that they move with it.

A texture is a two-colour pattern made of up to four plane waves,

    s(p) = sum_i amplitude_i sin(k_i . p + phase_i),     colour(p) = mix(dark, bright, (1 + tanh(sharpness s)) / 2),

with p the point in body coordinates [m]. One wave gives stripes, two give checks (the product of two sines is a sum of
two waves), four in random directions give blobs. Features are 2-4 pixels wide at 64 pixels per view: visible to a flow
method and smooth enough for a small autoencoder.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np

PATTERNS = ("stripes", "checks", "blobs")


@dataclass(frozen=True)
class Texture:
    """``waves`` (4, 4): wave vector [rad/m] and phase [rad]; ``amplitudes`` (4,); two display colours in [0, 1]."""

    waves: tuple[tuple[float, float, float, float], ...]
    amplitudes: tuple[float, float, float, float]
    sharpness: float
    dark: tuple[float, float, float]
    bright: tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """One directional light (``direction`` points from the surface to the light) over a uniform ambient term, linear RGB."""

    direction: tuple[float, float, float]
    colour: tuple[float, float, float]
    ambient: tuple[float, float, float]


def sample_light(rng: np.random.Generator) -> Light:
    """Draw a light from above and in front, of slightly varying colour."""
    azimuth, height = rng.uniform(-1.0, 1.0), rng.uniform(0.5, 1.1)
    direction = np.array([math.sin(azimuth) * math.cos(height), -math.cos(azimuth) * math.cos(height), math.sin(height)])
    colour = rng.uniform(0.7, 0.95) * (1 + rng.uniform(-0.06, 0.06, 3))
    ambient = rng.uniform(0.35, 0.5) * (1 + rng.uniform(-0.04, 0.04, 3))
    return Light(_triple(direction), _triple(colour), _triple(ambient))


def sample_texture(rng: np.random.Generator, use: str, scale: float = 1.0) -> Texture:
    """Draw a texture for ``use`` in object, ramp, wall, floor; ``scale`` multiplies all lengths.

    Objects are saturated with strong contrast between a dark and a bright colour; the surroundings are pale and soft.
    """
    hue, pattern = rng.random(), str(rng.choice(PATTERNS))
    if use == "object":
        dark = colorsys.hsv_to_rgb(hue, rng.uniform(0.75, 1.0), rng.uniform(0.2, 0.45))
        other = (hue + rng.uniform(0.25, 0.75)) % 1.0
        bright = colorsys.hsv_to_rgb(other, rng.uniform(0.35, 0.8), rng.uniform(0.9, 1.0))
        length, sharpness = rng.uniform(0.17, 0.28), rng.uniform(1.5, 2.5)
    else:
        value = {"wall": rng.uniform(0.5, 0.75), "floor": rng.uniform(0.4, 0.6), "ramp": rng.uniform(0.55, 0.8)}[use]
        saturation, step = rng.uniform(0.05, 0.22), rng.uniform(0.05, 0.1) * (1.5 if use == "ramp" else 1.0)
        dark = colorsys.hsv_to_rgb(hue, saturation, value - step)
        bright = colorsys.hsv_to_rgb(hue, saturation, value + step)
        length, sharpness = rng.uniform(0.3, 0.5 if use == "ramp" else 0.9), 1.0
    waves, amplitudes = _waves(rng, pattern, 2 * math.pi / (length * scale))
    return Texture(waves, amplitudes, float(sharpness), _triple(dark), _triple(bright))


def _waves(rng: np.random.Generator, pattern: str, number: float) -> tuple[tuple, tuple]:
    # the camera looks along y: the waves lie mostly in the image plane, or a face could look plain
    angle, lift = rng.uniform(0, 2 * math.pi, 4), rng.uniform(-0.4, 0.4, 4)
    vectors = np.stack([np.cos(angle) * np.cos(lift), np.sin(lift), np.sin(angle) * np.cos(lift)], axis=1)
    phases = rng.uniform(0, 2 * math.pi, 4)
    amplitudes = np.array([0.55, 0.55, 0.55, 0.55])
    if pattern == "stripes":
        amplitudes = np.array([1.0, 0.0, 0.0, 0.0])
    elif pattern == "checks":
        first = vectors[0]
        second = np.array([-first[2], first[1], first[0]])
        vectors[0], vectors[1] = (first - second) / math.sqrt(2), (first + second) / math.sqrt(2)
        amplitudes = np.array([0.8, -0.8, 0.0, 0.0])
    waves = np.concatenate([vectors * number, phases[:, None]], axis=1)
    return tuple(tuple(float(v) for v in row) for row in waves), tuple(float(v) for v in amplitudes)


def _triple(values: object) -> tuple[float, float, float]:
    r, g, b = (float(v) for v in values)  # type: ignore[attr-defined]
    return (r, g, b)
