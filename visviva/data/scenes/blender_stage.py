"""Runs inside Blender (nothing but bpy and the standard library): draws the scenes of one job file, frame by frame.

Usage: ``python blender_stage.py job.json`` or ``blender --background --python blender_stage.py -- job.json``.
The textures are the plane-wave solid textures of `visviva.data.scenes.appearance`, as shader nodes.
"""

# mypy: ignore-errors
from __future__ import annotations

import json
import math
import sys
from typing import Any

import bpy


def main(path: str) -> None:
    """Draw every frame of every scene of the job to ``output/SSSS-FFFF.png``."""
    with open(path) as file:
        job = json.load(file)
    for index, description in enumerate(job["scenes"]):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        scene = bpy.context.scene
        settings(scene, job)
        camera(scene, description["camera"])
        light(scene, description["light"])
        for part in description["still"]:
            thing = box(part["size"])
            put(thing, part["place"], part["turn"])
            paint(thing, part["texture"], part["local"], 0.9)
        bodies = [solid(body) for body in description["bodies"]]
        for frame, poses in enumerate(description["poses"]):
            for body, pose in zip(bodies, poses, strict=True):
                put(body, pose[:3], pose[3:])
            scene.render.filepath = f"{job['output']}/{index:04d}-{frame:04d}.png"
            bpy.ops.render.render(write_still=True)


def settings(scene: Any, job: dict[str, Any]) -> None:
    """Cycles on the CPU with a fixed seed, plain sRGB, PNG."""
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = job["samples"]
    scene.cycles.seed = 0
    scene.cycles.max_bounces = 4
    scene.cycles.use_denoising = bool(getattr(bpy.app.build_options, "openimagedenoise", False))
    scene.render.resolution_y, scene.render.resolution_x = job["size"]
    scene.render.resolution_percentage = 100
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGB"
    scene.view_settings.view_transform = "Standard"


def camera(scene: Any, about: dict[str, Any]) -> None:
    """The shift-lens camera: looks along +y."""
    data = bpy.data.cameras.new("camera")
    data.sensor_fit, data.angle, data.shift_y = "VERTICAL", about["field_of_view"], about["shift"]
    data.clip_end = 1000.0
    thing = bpy.data.objects.new("camera", data)
    thing.location, thing.rotation_euler = about["place"], (math.pi / 2, 0.0, 0.0)
    scene.collection.objects.link(thing)
    scene.camera = thing


def light(scene: Any, about: dict[str, Any]) -> None:
    """One sun with soft shadows over an ambient sky."""
    from mathutils import Vector

    data = bpy.data.lights.new("sun", "SUN")
    data.energy, data.color, data.angle = math.pi, about["colour"], math.radians(6.0)
    thing = bpy.data.objects.new("sun", data)
    thing.rotation_mode = "QUATERNION"
    thing.rotation_quaternion = Vector(about["direction"]).to_track_quat("Z", "Y")
    scene.collection.objects.link(thing)
    scene.world = bpy.data.worlds.new("sky")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (*about["ambient"], 1.0)


def put(thing: Any, place: list[float], turn: list[float]) -> None:
    """Set position and quaternion (w, x, y, z)."""
    thing.rotation_mode = "QUATERNION"
    thing.location, thing.rotation_quaternion = place, turn


def box(half: list[float]) -> Any:
    """A box of given half extents."""
    bpy.ops.mesh.primitive_cube_add(size=2.0)
    thing = bpy.context.object
    for vertex in thing.data.vertices:
        vertex.co = [c * h for c, h in zip(vertex.co, half, strict=True)]
    return thing


def solid(body: dict[str, Any]) -> Any:
    """One of the four shapes, painted."""
    a, b, _ = body["size"]
    if body["shape"] == "box":
        thing = box(body["size"])
        thing.modifiers.new("bevel", "BEVEL").width = 0.05 * min(body["size"])
    elif body["shape"] == "cylinder":
        bpy.ops.mesh.primitive_cylinder_add(vertices=64, radius=a, depth=2 * b)
        thing = bpy.context.object
        thing.modifiers.new("bevel", "BEVEL").width = 0.05 * a
    else:
        bpy.ops.mesh.primitive_uv_sphere_add(segments=64, ring_count=32, radius=a)
        thing = bpy.context.object
        if body["shape"] == "capsule":
            for vertex in thing.data.vertices:
                vertex.co.z += math.copysign(b, vertex.co.z) if abs(vertex.co.z) > 1e-6 else 0.0
        bpy.ops.object.shade_smooth()
    paint(thing, body["texture"], True, 0.35)
    return thing


def paint(thing: Any, texture: dict[str, Any], local: bool, roughness: float) -> None:
    """The solid texture as shader nodes, in the thing's own coordinates or (``local`` false) in the world's."""
    material = bpy.data.materials.new("solid")
    material.use_nodes = True
    tree = material.node_tree
    shader = tree.nodes["Principled BSDF"]
    shader.inputs["Roughness"].default_value = roughness
    source = tree.nodes.new("ShaderNodeTexCoord" if local else "ShaderNodeNewGeometry")
    point = source.outputs["Object" if local else "Position"]
    total = None
    for wave, amplitude in zip(texture["waves"], texture["amplitudes"], strict=True):
        dot = tree.nodes.new("ShaderNodeVectorMath")
        dot.operation, dot.inputs[1].default_value = "DOT_PRODUCT", wave[:3]
        tree.links.new(point, dot.inputs[0])
        term = calculate(
            tree, "MULTIPLY", calculate(tree, "SINE", calculate(tree, "ADD", dot.outputs["Value"], wave[3])), amplitude
        )
        total = term if total is None else calculate(tree, "ADD", total, term)
    level = calculate(tree, "TANH", calculate(tree, "MULTIPLY", total, texture["sharpness"]))
    mix = tree.nodes.new("ShaderNodeMixRGB")
    for socket, colour in ((1, texture["dark"]), (2, texture["bright"])):
        mix.inputs[socket].default_value = (*(linear(c) for c in colour), 1.0)
    tree.links.new(calculate(tree, "ADD", calculate(tree, "MULTIPLY", level, 0.5), 0.5), mix.inputs[0])
    tree.links.new(mix.outputs[0], shader.inputs["Base Color"])
    thing.data.materials.append(material)


def calculate(tree: Any, operation: str, a: Any, b: float | Any = 0.0) -> Any:
    """A math node on sockets or numbers; returns its output socket."""
    node = tree.nodes.new("ShaderNodeMath")
    node.operation = operation
    for socket, value in zip(node.inputs, (a, b), strict=False):
        if isinstance(value, (int, float)):
            socket.default_value = value
        else:
            tree.links.new(value, socket)
    return node.outputs[0]


def linear(c: float) -> float:
    """Display sRGB to linear."""
    return c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4


if __name__ == "__main__":
    main(sys.argv[-1])
