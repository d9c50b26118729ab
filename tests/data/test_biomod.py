"""biorbd's models: answers of biorbd 1.12.4, what a file may say, and what is refused."""

import math
import re

import numpy as np
import pytest
import torch

from visviva.data.bodies import read_biomod
from visviva.data.bodies.inertia import possible, widened
from visviva.errors import InputError

MODEL = """version 4
// a comment, and /* another */
gravity 0 0.5 -9.81
variables
    $length 0.4
    $half 0.2
endvariables
mesh_folder_prefix Geometry
segment ground
endsegment
segment Trunk
    parent ground
    RT 0.1 -0.2 0.3 xyz 0 0 0.9
    translations xz
    rotations zyx
    rangesQ -1 1 -2*pi 2*pi
            -3.14 3.14 -1 1 -1 1
    mass 30
    CenterOfMass 0.01 0.02 0.25
    inertia
        1.1 0.02 0.01
        0.02 1.0 0.03
        0.01 0.03 0.3
    meshfile trunk.vtp
    meshcolor 1 1 1
    meshrt 0 0 0 xyz 0 0 0
endsegment
segment Thigh
    parent Trunk
    RTinMatrix 1
    RT 0.8 0 0.6 0.05
       0 1 0 -pi/30
       -0.6 0 0.8 -0.1
       0 0 0 1
    rotations xy
    mass 8
    com 0 0 -$half
    inertia_xxyyzz 0.12 0.11 0.03
endsegment
segment Shank
    parent Thigh
    RT 0 0 0 xyz 0 0 -$length
    rotations y
    mass 3.5
    com 0.01 0 0.02-$half
    inertia 0.05 0 0 0 0.05 0 0 0 0.01
endsegment
segment Plate
    parent Shank
    RT pi/6 0 0 xyz 0.1 0 0
    mass 0.5
    inertia 0.002 0 0 0 0.001 0 0 0 0.002
endsegment
marker Heel
    parent Plate
    position -0.05 0 2*$half
    technical 1
    anatomical 0
endmarker
marker Wall
    position 1 2 3
endmarker
musclegroup thigh
    originparent Trunk
endmusclegroup
muscle one
    type hill
endmuscle
muscle two
    type hill
endmuscle
"""
NAMES = (*("Trunk_TransX", "Trunk_TransZ", "Trunk_RotZ", "Trunk_RotY", "Trunk_RotX", "Thigh_RotX", "Thigh_RotY", "Shank_RotY"),)
FORCES = [
    161.5443062623,
    344.6064679163,
    4.4380862605,
    32.561726741,
    12.7420155036,
    -10.6654689286,
    3.8395128145,
    1.9847951089,
]
HEEL = [0.526078434059, -0.266218745567, 1.241795580744]
"""What biorbd 1.12.4 answers for `MODEL` without its meshes in `state`: generalised forces, and where the heel is."""


def state():
    k = np.arange(8)
    return [torch.tensor(x) for x in (0.4 * np.sin(1 + k), np.cos(2 * k), 2 * np.sin(3 * k + 1))]


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "model.bioMod"
        path.write_text(text)
        return path

    return write


@pytest.mark.parity
def test_biorbd_gives_the_same_forces_and_markers(written):
    """Slides, hinges in any order, frames as angles and as matrices, variables, tilted gravity; biorbd's pi has 7 digits."""
    model = read_biomod(written(MODEL))
    c, v, a = state()
    assert model.coupled.names == NAMES
    assert model.coupled.inverse_dynamics(c, v, a).tolist() == pytest.approx(FORCES, rel=1e-7)
    assert model.place_markers(c)[0].tolist() == pytest.approx(HEEL, abs=1e-7)


def test_the_biorbd_model_says_what_it_holds(written):
    model = read_biomod(written(MODEL))
    assert model.coupled.body.total_mass == pytest.approx(42)
    assert model.ignored == {"musclegroup": 1, "muscle": 2}
    assert model.repaired == ()
    assert model.markers == ("Heel", "Wall")
    names = model.coupled.body.names
    assert [names[k] if k >= 0 else "world" for k in model.carrier] == ["Plate", "world"]
    moved = model.place_markers(torch.randn(5, 3, 8, dtype=torch.float64))
    assert moved.shape == (5, 3, 2, 3)
    assert torch.equal(moved[..., 1, :], torch.tensor([1.0, 2.0, 3.0]).double().expand(5, 3, 3))


def test_a_pendulum_weighs_by_its_sine(written):
    """m g l sin q about its axis; versions before 3 take frames as matrices without being told."""
    text = "version 2\nsegment Arm\nRT 1 0 0 0 0 1 0 0 0 0 1 2 0 0 0 1\nrotations x\nmass 2\ncom 0 0 -0.5\nendsegment"
    model = read_biomod(written(text))
    q = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    still = torch.zeros_like(q)
    tau = model.coupled.inverse_dynamics(q, still, still)
    assert torch.allclose(tau, 2 * 9.81 * 0.5 * q.sin(), atol=1e-12)
    assert model.coupled.body.offset.tolist() == [[0, 0, 2]]


def test_a_force_on_a_segment_is_balanced_by_its_lever(written):
    """A force that carries a pendulum at its centre of mass leaves no torque."""
    marker = "\nmarker com\nparent Arm\nposition 0 0 -0.5\nendmarker"
    text = "version 4\nsegment Arm\nrotations x\nmass 2\ncom 0 0 -0.5\nendsegment" + marker
    model = read_biomod(written(text))
    q = torch.tensor([[0.7], [-1.2]], dtype=torch.float64)
    still = torch.zeros_like(q)
    force = torch.tensor([0.0, 0.0, 2 * 9.81], dtype=torch.float64).expand(2, 3)
    wrench = model.coupled.wrench(q, "Arm", force, model.place_markers(q)[:, 0])
    assert float(model.coupled.inverse_dynamics(q, still, still, wrench).abs().max()) < 1e-12
    assert float(model.coupled.inverse_dynamics(q, still, still).abs().max()) > 1


def test_a_planar_inertia_keeps_its_moment(written):
    """One moment and two zeros: no body has them, a plane does."""
    text = "version 4\nsegment Arm\nrotations z\nmass 1\ninertia 0 0 0 0 0 0 0 0 0.04\nendsegment"
    model = read_biomod(written(text))
    assert model.repaired == ("Arm",)
    one = torch.ones(1, dtype=torch.float64)
    assert float(model.coupled.inverse_dynamics(0 * one, 0 * one, one)) == pytest.approx(0.04)
    assert torch.allclose(model.coupled.body.inertia[-1], torch.diag(torch.tensor([0.02, 0.02, 0.04]).double()))


@pytest.mark.parametrize("moments", [(1.0, 2.0, 2.5), (0.0, 0.0, 0.04), (0.1, 0.2, 0.9), (-1e-3, 0.2, 0.2)])
def test_widened_inertias_are_possible_and_others_stay(moments):
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    given = turn @ np.diag(moments) @ turn.T
    found = widened(given)
    assert possible(found)
    assert np.linalg.eigvalsh(found)[2] == pytest.approx(max(moments))
    assert not possible(given) or np.allclose(found, given)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("version 4", "version 9", "begins with 'version' and a number from 1 to 4"),
        ("version 4", "Model", "no biorbd model"),
        ("mass 30", "mass thirty", "'thirty' in segment Trunk where a number is wanted"),
        ("mass 30", "mass 1/0", "'1/0' in segment Trunk where a number is wanted"),
        ("mass 30", "mass 1e999", "where a finite number is wanted"),
        ("mass 30", "mass nan", "'nan' in segment Trunk where a number is wanted"),
        ("mass 30", "mass $mass", "no variable $mass"),
        ("mass 30", "mass 1_0", "numbers, pi, variables with a $"),
        ("mass 30", "mass 1#2", "numbers, pi, variables with a $"),
        ("mass 30", "mass __import__('os')", "numbers, pi, variables with a $"),
        ("mass 30", "mass 2pi", "where a number is wanted"),
        ("mass 30", "mass 30\nmass 31", "segment Trunk has mass twice"),
        ("inertia_xxyyzz 0.12 0.11 0.03", "inertia 1 0 0 5 1 0 0 0 1", "the inertia of segment Thigh is not symmetric"),
        ("$length 0.4", "length 0.4", "variable 'length'; names begin with a $"),
        ("$half 0.2", "$length 0.2", "each stands once"),
        ("RTinMatrix 1", "RTinMatrix yes", "RTinMatrix 'yes' of segment Thigh: 0 or 1 is wanted"),
        ("RTinMatrix 1\n    RT", "RT", "three of x, y, z, in one word"),
        ("RT pi/6 0 0 xyz 0.1 0 0", "RT pi/6 0 0 xyz 0.1 0 0\nRTinMatrix 0", "it stands after the RT"),
        ("RT pi/6 0 0 xyz", "RT pi/6 0 0 xx", "three of x, y, z, in one word"),
        ("segment ground", "segment Trunk/0\nendsegment\nsegment ground", "segments called as the links of another"),
        ("// a comment, and /* another */", "/* no end", "a comment that begins with /* has no end"),
        ("mass 30", "mass 9**9**9**9", "is no sum or product of numbers"),
        ("mass 30", "mass " + "(" * 300 + "1" + ")" * 300, "longer than 200"),
        ("mass 30", "mass -30", "negative mass of 'Trunk'"),
        ("rotations zyx", "rotations q", "quaternions are not covered"),
        ("rotations zyx", "rotations z y x", "'y' in segment Trunk is not understood"),
        ("translations xz", "translations xw", "up to three of x, y, z"),
        ("parent Thigh", "parent Hip", "the parent of Shank is 'Hip'; before it there are: ground, Trunk, Thigh"),
        ("parent Plate", "parent Sole", "markers on segments that the model has not: Heel (Sole)"),
        ("segment Shank", "segment Thigh", "two segments are called Thigh"),
        ("RT 0.8 0 0.6", "RT 0.8 0 0.9", "the RT of segment Thigh is no rotation"),
        ("RT 0.8 0 0.6 0.05\n       0 1 0", "RT 0.8 0 0.6 0.05\n       0 -1 0", "left-handed"),
        ("musclegroup thigh", "loopconstraint thigh", "loops (loopconstraint) are not covered"),
        ("endmuscle\nmuscle two\n    type hill\nendmuscle\n", "", "no 'endmuscle' after it"),
        ("technical 1", "colour red", "'colour' in marker Heel is not understood"),
        ("endsegment\nsegment Thigh", "segment Thigh", "'segment' in segment Trunk is not understood"),
    ],
)
def test_a_biorbd_model_that_cannot_be_is_refused(written, old, new, words):
    assert old in MODEL
    with pytest.raises(InputError, match=re.escape(words)):
        read_biomod(written(MODEL.replace(old, new)))


def test_files_that_are_no_biorbd_models_are_refused(tmp_path, written):
    with pytest.raises(InputError, match="cannot be read"):
        read_biomod(tmp_path / "missing.bioMod")
    (tmp_path / "binary.bioMod").write_bytes(b"\xff\xfe\x00version 4")
    with pytest.raises(InputError, match="no text"):
        read_biomod(tmp_path / "binary.bioMod")
    with pytest.raises(InputError, match="no segments"):
        read_biomod(written("version 4"))
    with pytest.raises(InputError, match="ends within segment Arm"):
        read_biomod(written("version 4\nsegment Arm\nmass 1\n"))
    with pytest.raises(InputError, match="no biorbd model"):
        read_biomod(written(""))


def test_axes_that_a_marker_removes_are_at_zero_as_in_biorbd(written):
    marker = "marker M\nparent Arm\nposition .1 .2 .3\naxestoremove xy\nendmarker"
    text = "version 4\nsegment Arm\nrotations x\nmass 1\nendsegment\n" + marker
    model = read_biomod(written(text))
    assert model.places.tolist() == [[0, 0, 0.3]]


def test_frames_end_with_the_end_of_any_of_them_and_comments_begin_words(written):
    """biorbd closes imu, mimu and customrt by one another's ends, and knows comments only where a word begins."""
    block = "imu {0} endmimu segment {0} mass 2 endsegment "
    model = read_biomod(written("version 4 " + block.format("A") + block.format("B")))
    assert model.coupled.body.names == ("A", "B")
    assert model.ignored == {"imu": 2}
    text = "version 4 mesh_folder_prefix Geo/* segment A endsegment // a */\nsegment C endsegment"
    assert read_biomod(written(text)).coupled.body.names == ("A", "C")


def test_hostile_words_take_no_time(written):
    """Long numbers, comments without end, variables named as digits: linear, or refused."""
    for text, words in (
        ("version 4\nsegment A\nmass " + "1" * 300_000 + "x", "longer than 200"),
        ("version 4\n" + "/* " * 300_000, "has no end"),
        ("version 4\nvariables\n1 0.22222222\nendvariables", "names begin with a \\$"),
    ):
        with pytest.raises(InputError, match=words):
            read_biomod(written(text))
    names = "\n".join(f"$v{k} 1+{k}/2" for k in range(20_000))
    text = f"version 4\nvariables\n{names}\nendvariables\nsegment A\nmass $v3*$v19999\nendsegment"
    assert read_biomod(written(text)).coupled.body.total_mass == pytest.approx(2.5 * 10000.5)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_comments_end_with_the_line_of_any_system(tmp_path, end):
    text = end.join(["version 4", "segment Arm // mass 9", "mass 2", "endsegment"])
    (tmp_path / "model.bioMod").write_bytes(text.encode())
    assert read_biomod(tmp_path / "model.bioMod").coupled.body.total_mass == 2


def test_the_model_moves_to_float32(written):
    model = read_biomod(written(MODEL))
    c = state()[0]
    single = model.to(torch.float32)
    assert torch.allclose(single.place_markers(c.float()).double(), model.place_markers(c), atol=1e-6)


def test_numbers_may_be_computed(written):
    text = "version 4\nvariables\n$a 2\n$ab 3\nendvariables\nsegment Arm\nmass -(1-$ab*$a)/5+2*pi\nendsegment"
    assert read_biomod(written(text)).coupled.body.total_mass == pytest.approx(1 + 2 * math.pi)
