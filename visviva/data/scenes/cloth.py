"""Cloth and hanging balls in the wind with Newton's semi-implicit solver, all scenes of a batch stepped together as one model.

The wind's force on every triangle and ball is added to the particles before each substep; without wind the air still brakes.
Things are sewn on stretched out, slightly waved, and hang down for `SETTLE` seconds in thick air before the clip begins.
"""

# mypy: disable-error-code="operator,assignment,index,misc"
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import warp as wp

from visviva.data.scenes.scene import GRAVITY, Scene
from visviva.data.scenes.wind import FULL, RATIO, TANGENT, Soft

if TYPE_CHECKING:
    import newton

SPACING = 0.1
"""Distance of a cloth's particles [m]."""
DENSITY = 0.2
"""Mass of cloth [kg/m^2]; the motion does not depend on it, nor on a ball's mass."""
STEP = 1.0 / 512.0
SETTLE, THICK = 1.75, 4.0
"""Time before the clip [s], and how much thicker the air is then."""
DROOP = math.radians(65)
"""How far a flag's length hangs down when the thick air takes it."""
STRETCH, BEND, BRAKE, STRING = 30.0, 1.0e-4, 0.01, 2000.0
"""Stiffness of cloth against stretching [N/m] and bending, damping of stretching [N s/m], stiffness of a string [N/m]."""
SOFT = 0.3
"""Stiffness of a pennant's cloth over that of a flag's: its small triangles would swing too fast for the steps."""
LINKS = 6
"""Pieces of a string."""


@dataclass(frozen=True)
class Mesh:
    """Places of particles at rest (K, 3) relative to the root [m], triangles (F, 3), and which are held (K,)."""

    points: np.ndarray
    faces: np.ndarray
    held: np.ndarray


def mesh(thing: Soft) -> Mesh:
    """Return the particles of a thing as it is sewn on; for a ball those of its string, the ball last, without triangles."""
    if thing.shape == "hanging_ball":
        points = np.zeros((LINKS + 1, 3))
        points[:, 2] = -thing.size[0] * np.arange(LINKS + 1) / LINKS
        return Mesh(points, np.zeros((0, 3), int), np.arange(LINKS + 1) == 0)
    columns, rows = (max(2, round(length / SPACING)) for length in thing.size)
    if thing.shape == "pennant":
        rows = 2
    across, down = np.meshgrid(np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))
    if thing.shape == "pennant":  # rows come together towards the tip
        down = 0.5 + (down - 0.5) * (1 - 0.8 * across)
    a, b = across.ravel() * thing.size[0], -down.ravel() * thing.size[1]
    points = np.stack([a * math.cos(thing.turn), a * math.sin(thing.turn), b], -1)
    number = np.arange(len(points)).reshape(rows + 1, columns + 1)
    p, q, r, s = (x.ravel() for x in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]))
    faces = np.concatenate([np.stack([p, r, q], -1), np.stack([q, r, s], -1)])
    held = a < 1e-9
    if thing.held == "corners":
        held &= (down.ravel() < 1e-9) | (down.ravel() > 1 - 1e-9)
    if thing.held == "top":
        held = b > -1e-9
    return Mesh(points, faces, held)


@wp.kernel(enable_backward=False)
def _cloth_wind(
    faces: wp.array2d[int],
    areas: wp.array[float],
    wind: wp.array[wp.vec3],
    strength: float,
    drag: float,
    x: wp.array[wp.vec3],
    v: wp.array[wp.vec3],
    force: wp.array[wp.vec3],
) -> None:
    """Add the wind's force on a triangle to its corners; ``drag`` is c [kg/(m^2 s)], areas are those at rest."""
    k = wp.tid()
    a, b, c = faces[k, 0], faces[k, 1], faces[k, 2]
    normal = wp.normalize(wp.cross(x[b] - x[a], x[c] - x[a]))
    u = strength * wind[k] - (v[a] + v[b] + v[c]) / 3.0
    across = wp.dot(normal, u) * normal
    pull = drag * areas[k] / 3.0 * (across + TANGENT * (u - across))
    wp.atomic_add(force, a, pull)
    wp.atomic_add(force, b, pull)
    wp.atomic_add(force, c, pull)


@wp.kernel(enable_backward=False)
def _ball_wind(
    drag: wp.array[float],
    wind: wp.array[wp.vec3],
    strength: float,
    thick: float,
    v: wp.array[wp.vec3],
    force: wp.array[wp.vec3],
) -> None:
    """Set the wind's force on a particle that is a ball; the drag of others is 0."""
    k = wp.tid()
    force[k] = thick * drag[k] * (strength * wind[k] - v[k])


def move(scenes: Sequence[Scene], frames: int, device: str = "cpu", seconds: float = 0.5) -> list[list[np.ndarray]]:
    """Simulate scenes of cloth or balls; return the places (T, K, 3) of the particles of each thing of each scene [m].

    ``seconds`` is how long the clip lasts in the lengths of `visviva.data.scenes.wind`, those of a clip of 0.5 s.
    """
    parts = [[mesh(thing) for thing in scene.soft] for scene in scenes]
    model, wind = _build(scenes, parts, device)
    record = _simulate(model, wind, frames, seconds)
    found, first = [], 0
    for own in parts:
        places = []
        for part in own:
            places.append(record[:, first : first + len(part.points)])
            first += len(part.points)
        found.append(places)
    return found


@dataclass(frozen=True)
class _Air:
    """Triangles, their areas and winds, winds and drags of particles, on the device."""

    faces: wp.array
    areas: wp.array
    face_wind: wp.array
    particle_wind: wp.array
    drag: wp.array

    def blow(self, state: newton.State, strength: float, thick: float) -> None:
        """Set the forces on the particles of a state."""
        inputs = [self.drag, self.particle_wind, strength, thick, state.particle_qd]
        wp.launch(_ball_wind, dim=len(self.drag), inputs=inputs, outputs=[state.particle_f], device=self.drag.device)
        if len(self.faces):
            drag = thick * RATIO["flag"] * GRAVITY * DENSITY / FULL
            inputs = [self.faces, self.areas, self.face_wind, strength, drag, state.particle_q, state.particle_qd]
            wp.launch(_cloth_wind, dim=len(self.faces), inputs=inputs, outputs=[state.particle_f], device=self.drag.device)


def _build(scenes: Sequence[Scene], parts: list[list[Mesh]], device: str) -> tuple[newton.Model, _Air]:
    import newton

    builder = newton.ModelBuilder(up_axis=newton.Axis.Z, gravity=(0.0, 0.0, -GRAVITY))
    builder.default_particle_radius = 0.0
    faces, areas, winds, particle_winds, drags = [], [], [], [], []
    for scene, own in zip(scenes, parts, strict=True):
        wind = scene.wind.velocity if scene.wind is not None else np.zeros(3)
        for thing, part in zip(scene.soft, own, strict=True):
            first = builder.particle_count
            drag = _add(builder, thing, part)
            faces.append(part.faces + first)
            areas.append(_areas(part))
            winds.append(np.tile(wind, (len(part.faces), 1)))
            particle_winds.append(np.tile(wind, (len(part.points), 1)))
            drags.append(drag)
    model = builder.finalize(device=device)

    def array(values: list[np.ndarray], dtype: type) -> wp.array:
        return wp.array(np.concatenate(values).astype(np.int32 if dtype is int else np.float32), dtype=dtype, device=device)

    return model, _Air(
        array(faces, int), array(areas, float), array(winds, wp.vec3), array(particle_winds, wp.vec3), array(drags, float)
    )


def _areas(part: Mesh) -> np.ndarray:
    """Areas (F,) of the triangles at rest [m^2]."""
    a, b, c = (part.points[part.faces[:, i]] for i in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2


def _add(builder: newton.ModelBuilder, thing: Soft, part: Mesh) -> np.ndarray:
    """Add the particles and springs of a thing to a model; return the drag of its particles as balls [kg/s]."""
    drag, first = np.zeros(len(part.points)), builder.particle_count
    if thing.shape == "hanging_ball":
        masses = np.full(len(part.points), 0.02)
        masses[-1] = 0.3
        drag[:] = RATIO[thing.shape] * GRAVITY * masses / FULL
        for place, mass, held in zip(part.points + thing.root, masses, part.held, strict=True):
            builder.add_particle(place.tolist(), (0.0, 0.0, 0.0), 0.0 if held else float(mass))
        for i in range(LINKS):
            builder.add_spring(first + i, first + i + 1, STRING, 0.5, 0.0)
        return drag
    way = np.array([math.cos(thing.turn), math.sin(thing.turn), 0.0])
    along = part.points @ way
    wave = 0.04 * np.sin(2 * math.pi * along / 0.4)[:, None] * np.array([-way[1], way[0], 0.0])
    sag = along[:, None] * (way * (math.cos(DROOP) - 1) - np.array([0.0, 0.0, math.sin(DROOP)]))
    places = part.points + thing.root
    soft = SOFT if thing.shape == "pennant" else 1.0
    builder.add_cloth_mesh(
        pos=wp.vec3(0.0), rot=wp.quat_identity(), scale=1.0, vel=wp.vec3(0.0), vertices=places.tolist(),
        indices=part.faces.ravel().tolist(), density=DENSITY, edge_ke=soft * BEND, edge_kd=0.0,
        tri_ke=soft * STRETCH, tri_ka=soft * STRETCH,
        tri_kd=soft * BRAKE, tri_drag=0.0, tri_lift=0.0, particle_radius=0.0,
    )  # fmt: skip
    for i, place in enumerate(places if thing.held == "top" else places + wave + sag):
        builder.particle_q[first + i] = wp.vec3(*place)
    for i in np.flatnonzero(part.held):
        builder.particle_mass[first + int(i)] = 0.0
    return drag


def _simulate(model: newton.Model, air: _Air, frames: int, seconds: float) -> np.ndarray:
    """Let the things settle, then blow; return the places (T, K, 3) at the frames."""
    import newton

    solver = newton.solvers.SolverSemiImplicit(model, enable_tri_contact=False)
    now, later = model.state(), model.state()
    for _ in range(round(SETTLE / STEP)):
        air.blow(now, 0.0, THICK)
        solver.step(now, later, None, None, STEP)
        now, later = later, now
    now.particle_qd.zero_()
    count = max(1, math.ceil(seconds / (frames - 1) / STEP))
    record = [now.particle_q.numpy().astype(np.float64)]
    for k in range((frames - 1) * count):
        air.blow(now, 1.0, 1.0)
        solver.step(now, later, None, None, seconds / (frames - 1) / count)
        now, later = later, now
        if (k + 1) % count == 0:
            record.append(now.particle_q.numpy().astype(np.float64))
    return np.stack(record)
