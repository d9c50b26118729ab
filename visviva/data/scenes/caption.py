"""Captions that state the conditions in numbers, so that caption and first frame together determine the motion."""

from __future__ import annotations

from visviva.data.scenes.push import PUSHES
from visviva.data.scenes.scene import Scene
from visviva.data.scenes.wind import WINDS


def caption(scene: Scene) -> str:
    """State a scene's conditions in a fixed form, e.g. ``"parabolic throw of a ball, speed 1.35 m/s, angle 52 degrees to the
    right, view 2.41 m"``. Objects are named from left to right; all objects of a throw share speed and angle.
    """
    numbers = scene.numbers
    if scene.primitive in PUSHES:
        return f"force at a point of a ball, view {numbers['view']:.2f} m"
    if scene.primitive in WINDS:
        return f"wind blows, view {numbers['view']:.2f} m"
    side = "right" if numbers.get("side", 1) > 0 else "left"
    other = "left" if side == "right" else "right"
    things = _and([f"a {body.shape}" for body in scene.bodies])
    view = f"view {numbers['view']:.2f} m"
    if scene.primitive == "free_fall":
        heights = _and([f"{numbers[f'height_{i}']:.2f}" for i in range(len(scene.bodies))])
        return f"free fall of {things}, height {heights} m, {view}"
    if scene.primitive == "horizontal_throw":
        return f"horizontal throw of {things}, speed {numbers['speed']:.2f} m/s to the {side}, {view}"
    if scene.primitive == "parabolic_throw":
        return (
            f"parabolic throw of {things}, speed {numbers['speed']:.2f} m/s, "
            f"angle {numbers['angle']:.0f} degrees to the {side}, {view}"
        )
    friction = f"friction {numbers['friction']:.2f}"
    if scene.primitive == "ramp_down":
        return f"{things} slides down a ramp, {numbers['slope']:.0f} degrees falling to the {side}, {friction}, {view}"
    return (
        f"{things} slides up a ramp, speed {numbers['speed']:.2f} m/s, {numbers['slope']:.0f} degrees rising to the {other}, "
        f"{friction}, {view}"
    )


def _and(words: list[str]) -> str:
    return " and ".join(words) if len(words) < 3 else ", ".join(words[:-1]) + " and " + words[-1]
