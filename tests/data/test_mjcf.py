"""Bodies read from MJCF and URDF against MuJoCo's own inverse dynamics, and hostile files."""

import numpy as np
import pytest
import torch

from visviva.data.bodies import read_mjcf, read_urdf
from visviva.data.bodies.xml import read_xml
from visviva.errors import InputError
from visviva.physics.dynamics import place

mujoco = pytest.importorskip("mujoco")

HUMANOID = """<mujoco model="humanoid">
<compiler angle="degree"/><option gravity="0.1 0 -9.7"/>
<default><joint armature="0.01"/></default>
<worldbody>
  <geom type="plane" size="5 5 .1"/>
  <body name="pelvis" pos="0 0 1.2" quat="0.9 0.1 0 0.2"><freejoint/>
    <geom type="box" size=".12 .15 .1" mass="11" pos=".01 .02 0"/>
    <body name="trunk" pos="0 0 .1"><joint name="spine" type="ball" pos="0 0.01 .05"/>
      <geom type="capsule" fromto="0 0 0 0 .02 .5" size=".12" density="700"/>
      <body name="head" pos="0 0 .6" euler="10 20 30"><geom type="ellipsoid" size=".09 .1 .12" mass="5"/></body>
      <body name="arm" pos="0 .2 .45" euler="0 30 10">
        <joint name="flexion" axis="0 1 0.2" pos="0 0 .02" ref="20" range="-90 90"/>
        <joint name="abduction" axis="1 0 0" pos="0.01 0 0"/>
        <joint name="rotation" axis="0 0.3 1"/>
        <geom type="capsule" fromto="0 0 0 0.02 0 -.3" size=".045"/>
        <body name="rod" pos="0 0 -.3"><joint name="reach" type="slide" axis="0 .2 -1" ref=".03" pos="0 .1 0"/>
          <inertial pos=".01 .02 -.1" quat=".8 .1 .5 .2" mass="1.5" diaginertia=".01 .008 .004"/></body>
      </body>
    </body>
    <body name="thigh" pos="0 -.1 -.05"><joint name="hip_x" axis="1 0 0"/><joint name="hip_y" axis="0 1 0"/>
      <geom type="capsule" fromto="0 0 0 0 0 -.4" size=".07"/>
      <body name="shank" pos="0 0 -.42"><joint name="knee" axis="0 -1 0" pos="-.01 0 .01"/>
        <geom type="capsule" fromto="0 0 0 0 0 -.4" size=".05"/></body>
    </body>
  </body>
  <body name="pendulum" pos="1 1 2"><joint name="swing" axis="0 1 0"/><geom type="sphere" size=".1" pos="0 0 -.5"/></body>
</worldbody></mujoco>"""

URDF = """<robot name="leg">
<link name="base"><inertial><origin xyz="0.01 0 0.02" rpy="0.1 0.2 0.3"/><mass value="5"/>
  <inertia ixx=".05" iyy=".06" izz=".04" ixy=".001" ixz=".002" iyz="-.003"/></inertial>
  <visual><geometry><mesh filename="package://absent/base.stl"/></geometry></visual></link>
<link name="bracket"><inertial><mass value=".5"/>
  <inertia ixx=".001" iyy=".001" izz=".001" ixy="0" ixz="0" iyz="0"/></inertial></link>
<link name="thigh"><inertial><origin xyz="0 0 -0.2"/><mass value="3"/>
  <inertia ixx=".03" iyy=".03" izz=".01" ixy="0" ixz="0" iyz="0"/></inertial></link>
<link name="slider"><inertial><mass value="1"/>
  <inertia ixx=".002" iyy=".002" izz=".002" ixy="0" ixz="0" iyz="0"/></inertial></link>
<joint name="fixed" type="fixed"><parent link="base"/><child link="bracket"/><origin xyz="0 .1 0" rpy="0.3 0 0"/></joint>
<joint name="hip" type="revolute"><parent link="bracket"/><child link="thigh"/><origin xyz="0 0 -.1" rpy="0 .4 0"/>
  <axis xyz="0 1 0"/><limit lower="-1" upper="1" effort="10" velocity="1"/></joint>
<joint name="reach" type="prismatic"><parent link="thigh"/><child link="slider"/><origin xyz="0 0 -.4"/>
  <axis xyz="0 0 -1"/><limit lower="0" upper="1" effort="10" velocity="1"/></joint>
</robot>"""


@pytest.fixture
def written(tmp_path):
    def write(text, name="body.xml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def agrees(body, model, count=4):
    """Inverse dynamics and places of the links against MuJoCo, relative to the largest value."""
    rng = np.random.default_rng(0)
    data = mujoco.MjData(model)
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_LIMIT
    assert (body.nq, body.nv) == (model.nq, model.nv)
    assert body.total_mass == pytest.approx(model.body_mass[1:].sum(), rel=1e-12)
    for _ in range(count):
        data.qpos[:] = rng.normal(size=model.nq)
        for joint in range(model.njnt):
            if model.jnt_type[joint] < 2:
                at = model.jnt_qposadr[joint] + 3 * (model.jnt_type[joint] == 0)
                data.qpos[at : at + 4] /= np.linalg.norm(data.qpos[at : at + 4])
        data.qvel[:], data.qacc[:] = rng.normal(size=(2, model.nv))
        mujoco.mj_inverse(model, data)
        q, v, a = (torch.tensor(x) for x in (data.qpos, data.qvel, data.qacc))
        tau = body.inverse_dynamics(q, v, a).numpy()
        assert np.abs(tau - data.qfrc_inverse).max() < 1e-9 * np.abs(tau).max()
        pose = place(body, q)
        for name, centre in zip(body.names, pose.centres(body), strict=True):
            index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
            if index > 0:
                assert np.allclose(centre.numpy(), data.xipos[index], atol=1e-10)


@pytest.mark.parity
def test_mjcf_has_mujocos_inverse_dynamics(written):
    path = written(HUMANOID)
    body = read_mjcf(path)
    assert body.joints.count("weld") == 1
    assert [n for n in body.names if n.startswith("arm")] == ["arm/flexion", "arm/abduction", "arm"]
    assert float(body.mass[body.names.index("arm/flexion")]) == 0
    agrees(body, mujoco.MjModel.from_xml_path(str(path)))


@pytest.mark.parity
@pytest.mark.parametrize("free", [True, False])
def test_urdf_has_mujocos_inverse_dynamics(written, free):
    body = read_urdf(written(URDF, "leg.urdf"), free=free)
    assert body.joints == (("free",) if free else ("weld",)) + ("weld", "hinge", "slide")
    assert body.total_mass == pytest.approx(9.5)
    plain = URDF.replace("</robot>", '<mujoco><compiler fusestatic="false"/></mujoco></robot>')
    plain = plain.replace('<visual><geometry><mesh filename="package://absent/base.stl"/></geometry></visual>', "")
    if free:
        floating = (
            '<link name="world"/><joint name="r" type="floating"><parent link="world"/><child link="base"/></joint></robot>'
        )
        plain = plain.replace("</robot>", floating)
    agrees(body, mujoco.MjModel.from_xml_string(plain))


def test_massless_links_of_urdf_are_read(written):
    """Three joints at one place through links without inertia, as many robots have them."""
    joints = "".join(
        f'<link name="l{k}"/><joint name="j{k}" type="continuous"><parent link="l{k - 1}"/><child link="l{k}"/>'
        f'<axis xyz="{axis}"/></joint>'
        for k, axis in ((1, "1 0 0"), (2, "0 1 0"))
    )
    last = '<joint name="j3" type="continuous"><parent link="l2"/><child link="thigh"/><axis xyz="0 0 1"/></joint>'
    thigh = URDF[URDF.index('<link name="thigh">') : URDF.index('<link name="slider">')]
    body = read_urdf(written(f'<robot name="r"><link name="l0"/>{joints}{thigh}{last}</robot>', "r.urdf"), free=False)
    assert body.mass.tolist() == [0, 0, 0, 3]
    assert body.joints == ("weld", "hinge", "hinge", "hinge")
    tau = body.inverse_dynamics(torch.zeros(3).double(), torch.zeros(3).double(), torch.tensor([1.0, 2, 3]).double())
    assert tau.tolist() == pytest.approx([0.03 + 3 * 0.04, 2 * (0.03 + 3 * 0.04), 0.03], rel=1e-6)


def test_gravity_follows_the_file(written):
    assert read_mjcf(written(HUMANOID)).down.tolist() == pytest.approx([0.1, 0, -9.7])
    off = HUMANOID.replace('<option gravity="0.1 0 -9.7"/>', '<option><flag gravity="disable"/></option>')
    assert read_mjcf(written(off)).down.tolist() == [0, 0, 0]


def spoiled(old, new):
    assert old in HUMANOID
    return HUMANOID.replace(old, new)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            spoiled("</mujoco>", '<equality><weld name="grip" body1="rod" body2="shank"/></equality></mujoco>'),
            r"equality constraints \(grip\)",
        ),
        (spoiled('<body name="head"', '<body gravcomp="1" name="head"'), "gravity compensation of head"),
        (spoiled('mass="5"', 'mass="nan"'), "has mass='nan'"),
        (spoiled('mass="1.5"', 'mass="-1.5"'), "MuJoCo does not compile it"),
        ("<mujoco><worldbody/></mujoco>", "nothing hangs on its world"),
        ("<mujoco><worldbody><body>", "not XML"),
        (URDF, "not <mujoco>; use read_urdf"),
        ("<a>" * 1000 + "</a>" * 1000, "nested more than 200 deep"),
        ('<!DOCTYPE m [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><mujoco>&b;</mujoco>', "remove the DOCTYPE"),
        ("", "not XML"),
    ],
)
def test_files_that_are_no_tree_of_links_are_refused(written, text, said):
    with pytest.raises(InputError, match=said):
        read_mjcf(written(text))


def test_urdf_refusals(written):
    with pytest.raises(InputError, match="use read_mjcf"):
        read_urdf(written(HUMANOID))
    with pytest.raises(InputError, match="2 links without a parent"):
        read_urdf(written(URDF.replace("</robot>", '<link name="lost"/></robot>')))


def test_huge_and_absent_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_xml(tmp_path / "absent.xml")
    with (tmp_path / "huge.xml").open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(InputError, match="65 MiB"):
        read_xml(tmp_path / "huge.xml")
    (tmp_path / "wide.xml").write_text('<?xml version="1.0" encoding="no-such"?><mujoco/>')
    with pytest.raises(InputError, match="not XML"):
        read_xml(tmp_path / "wide.xml")
