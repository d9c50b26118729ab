"""Bodies from MJCF and URDF files, compiled by MuJoCo.

What MuJoCo calls a body with several joints becomes a chain of links, all but the last massless, each with its origin at its
joint. Configuration, velocity and forces keep MuJoCo's layout and order, so that `qpos` and `qvel` can be used as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import roma
import torch
from torch import Tensor

from visviva.data.bodies.xml import read_xml
from visviva.errors import InputError
from visviva.physics.bodies import Body

LIGHT = 1e-12
"""What MuJoCo takes for the mass and inertia of massless links [kg, kg m^2]; read as nothing."""
KINDS = ("free", "ball", "slide", "hinge")
"""Kinds of joints in MuJoCo's numbering."""


def read_mjcf(path: str | Path) -> Body:
    """Return the body that an MJCF file describes: everything that hangs on its world.

    Springs, dampers, friction, limits, contacts and actuators are no part of it: inverse dynamics gives the sum of all forces
    that act at a joint, whatever makes them.

    Raises:
        InputError: a file that cannot be read or that MuJoCo does not compile, equality constraints, gravity compensation,
            tendons with inertia (by name).

    Example::

        body = read_mjcf("humanoid.xml")
        tau = body.inverse_dynamics(qpos, qvel, qacc)  # float64, as MuJoCo's mj_inverse without passive forces
    """
    path = Path(path)
    root = read_xml(path)
    if root.tag != "mujoco":
        raise InputError(f"{path}: its root is <{root.tag}>, not <mujoco>{'; use read_urdf' if root.tag == 'robot' else ''}")
    _check_numbers(root, path)
    return from_mujoco(_compiled(str(path), None), str(path))


def read_urdf(path: str | Path, free: bool = True) -> Body:
    """Return the body that a URDF file describes.

    Visuals and collision shapes are not looked at; masses and inertias are those of the file. What `read_mjcf` says of passive
    forces holds here, too.

    Args:
        path: of the file.
        free: whether its root link moves freely; else it is fixed to the world.

    Raises:
        InputError: as `read_mjcf`.

    Example::

        body = read_urdf("robot.urdf", free=False)
    """
    path = Path(path)
    root = read_xml(path)
    if root.tag != "robot":
        raise InputError(f"{path}: its root is <{root.tag}>, not <robot>{'; use read_mjcf' if root.tag == 'mujoco' else ''}")
    _check_numbers(root, path)
    for link in root.iter("link"):
        for shape in [*link.findall("visual"), *link.findall("collision")]:
            link.remove(shape)
    for extension in root.findall("mujoco"):
        root.remove(extension)
    compiler = ElementTree.SubElement(ElementTree.SubElement(root, "mujoco"), "compiler")
    compiler.attrib.update(
        {"fusestatic": "false", "balanceinertia": "false", "boundmass": str(LIGHT), "boundinertia": str(LIGHT)}
    )
    if free:
        _freed(root, path)
    return from_mujoco(_compiled(str(path), ElementTree.tostring(root, encoding="unicode")), str(path))


def _check_numbers(root: ElementTree.Element, path: Path) -> None:
    """Refuse what is not finite: MuJoCo takes some of it for values that are not given."""
    for element in root.iter():
        for key, value in element.attrib.items():
            if key != "name" and any(word.lstrip("+-").lower() in ("nan", "inf", "infinity") for word in value.split()):
                raise InputError(
                    f"{path}: <{element.tag} name={element.get('name')!r}> has {key}={value!r}; numbers are finite"
                )


def _freed(root: ElementTree.Element, path: Path) -> None:
    """Hang the root link on the world with a floating joint."""
    children = {child.get("link") for child in root.findall("joint/child")}
    roots = [link.get("name", "") for link in root.findall("link") if link.get("name") not in children]
    if len(roots) != 1:
        raise InputError(f"{path}: {len(roots)} links without a parent ({', '.join(roots)}); a body has one")
    if roots == ["world"]:
        return
    ElementTree.SubElement(root, "link", name="world")
    joint = ElementTree.SubElement(root, "joint", name="root", type="floating")
    ElementTree.SubElement(joint, "parent", link="world")
    ElementTree.SubElement(joint, "child", link=roots[0])


def _compiled(path: str, text: str | None) -> Any:
    import mujoco

    try:
        return mujoco.MjModel.from_xml_path(path) if text is None else mujoco.MjModel.from_xml_string(text)
    except (ValueError, mujoco.FatalError) as error:
        raise InputError(f"{path}: MuJoCo does not compile it: {error}") from error


def from_mujoco(model: Any, name: str = "the model") -> Body:
    """Return the body of a compiled `mujoco.MjModel`, in float64.

    Args:
        model: the compiled model.
        name: of it, for errors.

    Raises:
        InputError: what a tree of rigid links does not cover, by name.
    """
    _check(model, name)
    links: list[dict[str, Any]] = []
    last, origin = {0: -1}, {0: np.zeros(3)}  # of each MuJoCo body: its link, and the link's origin in the body's frame
    for body in range(1, model.nbody):
        parent = int(model.body_parentid[body])
        frame = {"offset": model.body_pos[body] - origin[parent], "rest": _rotation(model.body_quat[body])}
        at = np.zeros(3)
        for link in _chain(model, body):
            shift = frame["rest"] @ (link["anchor"] - at)
            links.append(link | {"parent": last[parent], "offset": frame["offset"] + shift, "rest": frame["rest"]})
            _offset_by_reference(links[-1])
            frame, at, parent = {"offset": np.zeros(3), "rest": np.eye(3)}, link["anchor"], -1 - body
            last[parent] = len(links) - 1
        last[body], origin[body] = len(links) - 1, at
        turned = _rotation(model.body_iquat[body])
        if model.body_mass[body] <= LIGHT:
            continue
        links[-1]["mass"] = float(model.body_mass[body])
        links[-1]["com"] = model.body_ipos[body] - at
        links[-1]["inertia"] = turned @ np.diag(model.body_inertia[body]) @ turned.T
    return _body(model, links)


def _chain(model: Any, body: int) -> list[dict[str, Any]]:
    """One link per joint of a MuJoCo body (one without joints is welded), massless as yet."""
    import mujoco

    def named(kind: Any, index: int, fallback: str) -> str:
        return mujoco.mj_id2name(model, kind, index) or fallback

    name = named(mujoco.mjtObj.mjOBJ_BODY, body, f"body{body}")
    empty = {"mass": 0.0, "com": np.zeros(3), "inertia": np.zeros((3, 3)), "axis": np.zeros(3), "anchor": np.zeros(3)}
    first, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
    if not count:
        return [empty | {"name": name, "joint": "weld", "reference": 0.0}]
    chain = []
    for joint in range(first, first + count):
        kind = KINDS[int(model.jnt_type[joint])]
        own = name if joint == first + count - 1 else f"{name}/{named(mujoco.mjtObj.mjOBJ_JOINT, joint, f'joint{joint}')}"
        moved = {"name": own, "joint": kind, "reference": float(model.qpos0[model.jnt_qposadr[joint]])}
        if kind in ("slide", "hinge"):
            moved["axis"] = model.jnt_axis[joint]
        if kind != "free":
            moved["anchor"] = model.jnt_pos[joint]
        chain.append(empty | moved)
    return chain


def _offset_by_reference(link: dict[str, Any]) -> None:
    """Angles and displacements are ``ref`` in the pose that the file describes; free joints count from the world."""
    if link["joint"] == "free":
        link["offset"], link["rest"] = np.zeros(3), np.eye(3)
    elif link["joint"] == "hinge":
        back = roma.rotvec_to_rotmat(torch.tensor(-link["reference"] * link["axis"])).numpy()
        link["rest"] = link["rest"] @ back
    elif link["joint"] == "slide":
        link["offset"] = link["offset"] - link["rest"] @ (link["reference"] * link["axis"])


def _rotation(quaternion: Any) -> np.ndarray:
    return roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(torch.tensor(quaternion))).numpy()


def _body(model: Any, links: list[dict[str, Any]]) -> Body:
    import mujoco

    def stacked(key: str) -> Tensor:
        return torch.tensor(np.array([link[key] for link in links]), dtype=torch.float64)

    weightless = bool(model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_GRAVITY)
    armature = torch.tensor(model.dof_armature, dtype=torch.float64)
    return Body(
        names=tuple(link["name"] for link in links),
        parents=tuple(link["parent"] for link in links),
        joints=tuple(link["joint"] for link in links),
        **{key: stacked(key) for key in ("offset", "rest", "axis", "mass", "com", "inertia")},
        gravity=torch.tensor(model.opt.gravity * (not weightless), dtype=torch.float64),
        armature=armature if bool(armature.any()) else None,
    )


def _check(model: Any, name: str) -> None:
    """Refuse what a tree of rigid links does not cover, by name."""
    import mujoco

    def names(kind: Any, which: Any) -> str:
        return ", ".join(mujoco.mj_id2name(model, kind, int(i)) or f"number {i}" for i in which)

    if model.nbody < 2:
        raise InputError(f"{name}: nothing hangs on its world; a body has at least one link")
    if model.neq:
        found = names(mujoco.mjtObj.mjOBJ_EQUALITY, range(model.neq))
        raise InputError(f"{name}: equality constraints ({found}) close loops, which a tree has not; remove them from the file")
    if model.nflex:
        raise InputError(f"{name}: soft bodies ({names(mujoco.mjtObj.mjOBJ_FLEX, range(model.nflex))}) are no rigid links")
    lifted = np.flatnonzero(model.body_gravcomp)
    if len(lifted):
        raise InputError(f"{name}: gravity compensation of {names(mujoco.mjtObj.mjOBJ_BODY, lifted)} is not covered; remove it")
    geared = np.flatnonzero(model.tendon_armature)
    if len(geared):
        raise InputError(f"{name}: tendons with inertia ({names(mujoco.mjtObj.mjOBJ_TENDON, geared)}) are not covered")
