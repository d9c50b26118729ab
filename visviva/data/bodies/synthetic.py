"""Test models in the format of the SMPL family: of its numbers of vertices and joints, and of none of its data.

A figure of one tube per bone, closed and joined by blended weights, with three shape directions: size, girth, length of legs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visviva.data.files import whole
from visviva.errors import InputError
from visviva.physics.bodies import SKELETONS

COUNTS = {"smpl": (6890, 24), "smplh": (6890, 52), "smplx": (10475, 55)}
"""Vertices and joints of each kind."""
SIDES, SHAPES = 10, 20
PLACES = {
    "pelvis": (0, 0, 0), "hip": (0.09, -0.08, 0), "spine1": (0, 0.1, -0.01), "knee": (0.1, -0.48, 0), "spine2": (0, 0.22, 0),
    "ankle": (0.1, -0.88, -0.03), "spine3": (0, 0.29, 0.01), "foot": (0.11, -0.93, 0.1), "neck": (0, 0.5, -0.01),
    "collar": (0.07, 0.41, -0.02), "head": (0, 0.58, 0.02), "shoulder": (0.17, 0.44, -0.02), "elbow": (0.44, 0.43, -0.03),
    "wrist": (0.69, 0.43, -0.03), "hand": (0.77, 0.43, -0.03),
}  # fmt: skip
"""Joints of the figure, of the left side where there are two [m]."""
GIRTH = {
    "pelvis": 0.11, "spine1": 0.11, "spine2": 0.12, "spine3": 0.12, "hip": 0.07, "knee": 0.05, "ankle": 0.035, "foot": 0.03,
    "neck": 0.05, "collar": 0.05, "head": 0.08, "shoulder": 0.045, "elbow": 0.035, "wrist": 0.025, "hand": 0.02,
}  # fmt: skip
"""Radius of each link's tube [m]."""
REACH = {"head": (0, 0.17, 0), "foot": (0, -0.01, 0.07), "hand": (0.08, 0, 0), "wrist": (0.09, 0, 0)}
"""How far the last links of chains reach beyond their joint, of the left side [m]."""


def write_test_model(path: str | Path, kind: str = "smpl") -> None:
    """Write a test model that `read_smpl` and the `smplx` package read as one of the SMPL family.

    Args:
        path: of the npz file.
        kind: smpl, smplh or smplx.

    Raises:
        InputError: another kind, or a path that cannot be written.

    Example::

        write_test_model("model.npz", "smplx")
    """
    if kind not in COUNTS:
        raise InputError(f"no test model {kind!r}; there are {', '.join(COUNTS)}")
    vertices, joints = COUNTS[kind]
    names, parents, places, ends = _figure(joints)
    mesh, outwards, owner, faces, weights = _tubes(names, parents, places, ends, vertices)
    arrays: dict[str, NDArray] = {
        "v_template": mesh,
        "f": faces.astype(np.uint32),
        "weights": weights,
        "shapedirs": _directions(mesh, outwards),
        "posedirs": np.zeros((vertices, 3, 9 * (joints - 1)), np.float32),
        "J_regressor": _regressor(mesh, owner, places),
        "kintree_table": np.array([[2**32 - 1, *parents[1:]], range(joints)], np.uint32),
    }
    if kind != "smpl":
        arrays |= {f"hands_mean{side}": np.zeros(45) for side in "lr"} | {
            f"hands_components{side}": np.eye(45) for side in "lr"
        }
    if kind == "smplx":
        arrays |= {"lmk_faces_idx": np.arange(51), "lmk_bary_coords": np.full((51, 3), 1 / 3)}
        arrays |= {"dynamic_lmk_faces_idx": np.zeros((79, 17), int), "dynamic_lmk_bary_coords": np.full((79, 17, 3), 1 / 3)}
    with whole(path) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _figure(joints: int) -> tuple[list[str], list[int], NDArray, NDArray]:
    """Names, parents, places and far ends of the links: SMPL's, or 22 of them with a face and fingers."""
    tree = SKELETONS["smpl" if joints == 24 else "humanml3d"]
    names, parents = list(tree.names), list(tree.parents)
    places = [np.array(PLACES[n.split("_")[-1]]) * ((-1, 1, 1) if n.startswith("right") else (1, 1, 1)) for n in names]
    for extra in range(joints - len(names)):
        fingers = joints - 30
        at, way = ("head", (0, 0.03, 0.05)) if len(names) < fingers else ("left_wrist", (0.08, 0, 0))
        knuckle = (len(names) - fingers) % 15
        if len(names) >= fingers + 15:
            at, way = "right_wrist", (-0.08, 0, 0)
        chained = len(names) > fingers and knuckle % 3
        parents.append(len(names) - 1 if chained else names.index(at))
        side = 0.02 * (knuckle // 3 - 2) if len(names) >= fingers else 0.02 * (extra - 1)
        step = np.array(way) * (0.3 if chained else 1.0) + (0 if chained else np.array([0, 0, side]))
        places.append(places[parents[-1]] + step)
        names.append(f"{at}_tip{extra}")
    ends = []
    for link, name in enumerate(names):
        below = [places[i] for i, p in enumerate(parents) if p == link and i < len(tree.names)]
        reach = np.array(REACH.get(name.split("_")[-1], (0.015, 0.0, 0.0))) * ((-1, 1, 1) if "right" in name else (1, 1, 1))
        ends.append(np.mean(below, 0) if below and name not in ("pelvis", "spine3") else places[link] + reach)
    ends[0], ends[names.index("spine3")] = np.array([0, 0.1, -0.01]), np.array([0, 0.5, -0.01])
    return names, parents, np.array(places), np.array(ends)


def _tubes(
    names: list[str], parents: list[int], places: NDArray, ends: NDArray, total: int
) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    """Vertices, their outward directions, links and faces of one closed tube per link, and blended weights."""
    rings = (total // len(names) - 2) // SIDES
    found: list[tuple[NDArray, NDArray, NDArray, NDArray]] = []
    count = 0
    for link, name in enumerate(names):
        along = (ends[link] - places[link]) / np.linalg.norm(ends[link] - places[link])
        one = np.cross(along, np.eye(3)[np.abs(along).argmin()])
        one /= np.linalg.norm(one)
        turn = np.arange(SIDES) * 2 * np.pi / SIDES
        circle = np.cos(turn)[:, None] * one + np.sin(turn)[:, None] * np.cross(along, one)
        far = np.linspace(0, 1, rings)
        centres = places[link] + far[:, None] * (ends[link] - places[link])
        radius = GIRTH.get(name.split("_")[-1], 0.008)
        points = np.concatenate(
            [(centres[:, None] + radius * circle).reshape(-1, 3), places[link : link + 1], ends[link : link + 1]]
        )
        own = np.concatenate([np.repeat(np.minimum(1, 0.5 + 4 * far), SIDES), [0.5, 1]])
        rows = np.zeros((len(own), len(names)))
        rows[:, link] = own
        rows[:, max(parents[link], 0)] += 1 - own
        found.append((points, np.concatenate([np.tile(circle, (rings, 1)), np.zeros((2, 3))]), count + _wall(rings), rows))
        count += len(points)
    owner = np.repeat(np.arange(len(names)), [len(points) for points, *_ in found])
    mesh, outwards, faces, weights = (np.concatenate(column) for column in zip(*found, strict=True))
    return _padded(mesh, outwards, faces, weights, owner, total)


def _wall(rings: int) -> NDArray:
    faces = []
    for k in range(SIDES):
        n = (k + 1) % SIDES
        faces += [[rings * SIDES, n, k], [rings * SIDES + 1, (rings - 1) * SIDES + k, (rings - 1) * SIDES + n]]
        for ring in range(rings - 1):
            a, b = ring * SIDES, (ring + 1) * SIDES
            faces += [[a + k, a + n, b + k], [a + n, b + n, b + k]]
    return np.array(faces)


def _padded(
    mesh: NDArray, outwards: NDArray, faces: NDArray, weights: NDArray, owner: NDArray, total: int
) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    """Divide faces in three until there are as many vertices as wanted."""
    split = faces[: total - len(mesh)]
    new = len(mesh) + np.arange(len(split))
    a, b, c = split.T
    faces = np.concatenate([faces[len(split) :], *(np.stack(t, -1) for t in ((a, b, new), (b, c, new), (c, a, new)))])
    mesh, outwards, weights = (np.concatenate([x, x[split].mean(1)]) for x in (mesh, outwards, weights))
    return mesh, outwards, np.concatenate([owner, np.full(len(split), -1)]), faces, weights


def _directions(mesh: NDArray, outwards: NDArray) -> NDArray:
    legs = mesh * (0, 1, 0) * (mesh[:, 1:2] < 0)
    return np.stack([0.04 * mesh, 0.006 * outwards, 0.04 * legs, *np.zeros((SHAPES - 3, *mesh.shape))], -1)


def _regressor(mesh: NDArray, owner: NDArray, places: NDArray) -> NDArray:
    """Each joint is the middle of its tube's first ring."""
    rows = np.zeros((len(places), len(mesh)))
    for link in range(len(places)):
        rows[link, np.flatnonzero(owner == link)[:SIDES]] = 1 / SIDES
    return rows
