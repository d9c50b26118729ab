"""Random trees for tests, and the same trees for MuJoCo and Pinocchio."""

import roma
import torch

from visviva.physics.bodies import JOINTS, Body

KINDS = ("ball", "hinge", "slide", "weld")


def tree(links=24, seed=0, kinds=KINDS, root="free"):
    """A random tree whose links are numbered depth first, as MuJoCo numbers them."""
    rng = torch.Generator().manual_seed(seed)
    parents, path = [-1], [0]
    for index in range(1, links):
        path = path[: 1 + int(torch.randint(max(0, len(path) - 3), len(path), (), generator=rng))]
        parents.append(path[-1])
        path.append(index)
    joints = [root, *(kinds[int(torch.randint(len(kinds), (), generator=rng))] for _ in range(links - 1))]

    def normal(*shape):
        return torch.randn(links, *shape, generator=rng, dtype=torch.float64)

    size = normal(3, 3)
    cloud = size @ size.mT  # second moments of a mass: its inertia has principal moments that fit together
    inertia = cloud.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] * torch.eye(3) - cloud
    rest = roma.rotvec_to_rotmat(0.7 * normal(3))
    offset = 0.3 * normal(3)
    if root == "free":
        rest[0], offset[0] = torch.eye(3), 0
    axis = normal(3)
    return Body(
        names=tuple(f"link{i}" for i in range(links)),
        parents=tuple(parents),
        joints=tuple(joints),
        offset=offset,
        rest=rest,
        axis=axis / axis.norm(dim=-1, keepdim=True),
        mass=torch.rand(links, generator=rng, dtype=torch.float64) + 0.2,
        com=0.1 * normal(3),
        inertia=0.02 * inertia,
    )


def state(body, count=5, seed=0):
    """Random configurations with quaternions of unit length, velocities and accelerations."""
    rng = torch.Generator().manual_seed(seed + 100)
    q = torch.randn(count, body.nq, generator=rng, dtype=torch.float64)
    at = 0
    for joint in body.joints:
        if joint in ("free", "ball"):
            four = slice(at + JOINTS[joint][0] - 4, at + JOINTS[joint][0])
            q[:, four] /= q[:, four].norm(dim=-1, keepdim=True)
        at += JOINTS[joint][0]
    v, a = (2 * torch.randn(count, body.nv, generator=rng, dtype=torch.float64) for _ in range(2))
    return q, v, a


def numbers(values):
    return " ".join(f"{float(x):.17g}" for x in values)


def mjcf(body):
    """The body as a MuJoCo model."""
    children = {i: [j for j, p in enumerate(body.parents) if p == i] for i in range(-1, len(body))}

    def element(i):
        quaternion = roma.quat_xyzw_to_wxyz(roma.rotmat_to_unitquat(body.rest[i]))
        moments = body.inertia[i]
        full = numbers([moments[0, 0], moments[1, 1], moments[2, 2], moments[0, 1], moments[0, 2], moments[1, 2]])
        joint = {
            "free": "<freejoint/>",
            "ball": '<joint type="ball"/>',
            "hinge": f'<joint type="hinge" axis="{numbers(body.axis[i])}"/>',
            "slide": f'<joint type="slide" axis="{numbers(body.axis[i])}"/>',
            "weld": "",
        }[body.joints[i]]
        inner = "".join(element(j) for j in children[i])
        return (
            f'<body name="{body.names[i]}" pos="{numbers(body.offset[i])}" quat="{numbers(quaternion)}">{joint}'
            f'<inertial pos="{numbers(body.com[i])}" mass="{float(body.mass[i]):.17g}" fullinertia="{full}"/>{inner}</body>'
        )

    options = '<option gravity="0 0 -9.81"><flag contact="disable"/></option><compiler boundmass="0" balanceinertia="false"/>'
    return f"<mujoco>{options}<worldbody>{''.join(element(i) for i in children[-1])}</worldbody></mujoco>"


def pinocchio_model(body):
    """The body as a Pinocchio model (its free root is a body-fixed free flyer)."""
    import pinocchio as pin

    model, ids = pin.Model(), []
    model.gravity.linear[:] = [0, 0, -9.81]
    for i, (parent, joint) in enumerate(zip(body.parents, body.joints, strict=True)):
        placement = pin.SE3(body.rest[i].numpy(), body.offset[i].numpy())
        axis = body.axis[i].numpy()
        kind = {
            "free": pin.JointModelFreeFlyer,
            "ball": pin.JointModelSpherical,
            "hinge": lambda axis=axis: pin.JointModelRevoluteUnaligned(axis),
            "slide": lambda axis=axis: pin.JointModelPrismaticUnaligned(axis),
        }[joint]()
        ids.append(model.addJoint(0 if parent < 0 else ids[parent], kind, placement, body.names[i]))
        inertia = pin.Inertia(float(body.mass[i]), body.com[i].numpy(), body.inertia[i].numpy())
        model.appendBodyToJoint(ids[-1], inertia, pin.SE3.Identity())
    return model


def for_pinocchio(body, q, v, a):
    """Configuration, velocity and acceleration of one state as Pinocchio lays them out: x, y, z, w; body-fixed root."""
    q, v, a = q.clone(), v.clone(), a.clone()
    at = 0
    for joint in body.joints:
        if joint in ("free", "ball"):
            end = at + JOINTS[joint][0]
            q[end - 4 : end] = roma.quat_wxyz_to_xyzw(q[end - 4 : end])
        at += JOINTS[joint][0]
    if body.joints[0] == "free":
        rotation = roma.unitquat_to_rotmat(q[3:7])
        v[:3] = rotation.T @ v[:3]
        a[:3] = rotation.T @ a[:3] - torch.linalg.cross(v[3:6], v[:3])
    return tuple(x.numpy() for x in (q, v, a))
