"""HumanML3D features: both ways without loss, the traps of the format, and the sample clip."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from people import joints

from visviva.data.motions.humanml3d import (
    CHAINS,
    NAMES,
    PARENTS,
    features,
    from_features,
    heading,
    joints_of,
    to_features,
    yawed,
)
from visviva.errors import InputError


@given(seed=st.integers(0, 10**6), turn=st.floats(-3, 3))
@settings(max_examples=15, deadline=None)
def test_joints_to_features_and_back_is_the_same_motion(seed, turn):
    true = joints(40, seed, turn=turn)
    back = joints_of(features(true.float()))
    assert (back - true[:-1]).norm(dim=-1).max() < 1e-4


def test_a_motion_elsewhere_comes_back_above_the_origin():
    true = joints(30, 3)
    moved = true + torch.tensor([3.0, 0.0, -2.0])
    assert torch.allclose(joints_of(features(moved)), true[:-1], atol=1e-9)


def test_the_yaw_channel_is_half_of_the_turn():
    true, rate = joints(200, 1, size=0.0, turn=0.0), 0.02
    spinning = yawed(true, rate * torch.arange(200, dtype=torch.float64)[:, None])
    found = features(spinning)[80:110, 0]
    assert torch.allclose(found, torch.full_like(found, -rate / 2), atol=1e-6)


def test_velocities_are_those_of_the_recovered_joints_in_the_heading():
    true = joints(50, 5)
    found = features(true)
    yaw = heading(true)
    moved = yawed(joints_of(found).diff(dim=0), -yaw[:-2, None])
    assert torch.allclose(found[:-1, 193:259], moved.flatten(1), atol=1e-9)


def test_features_turn_with_nobody():
    """Turned about the vertical, a motion has the same features, but in the first frame, which is taken to face +z."""
    true = joints(40, 2)
    turned = yawed(true, torch.tensor(0.7).double())
    assert torch.allclose(features(true)[1:, :67], features(turned)[1:, :67], atol=1e-9)
    assert not torch.allclose(features(true)[:1, :67], features(turned)[:1, :67], atol=1e-2)


def test_contacts_say_which_feet_stand():
    still = joints(10, 0)[:1].repeat(10, 1, 1)
    still[:, 10, 0] += 0.05 * torch.arange(10)  # 5 cm per frame: squared 0.0025
    still[:, 8, 0] += 0.04 * torch.arange(10)  # 0.0016
    assert torch.equal(features(still)[:, 259:].bool(), torch.tensor([[True, False, True, True]]).expand(9, 4))


def test_chains_and_parents_agree():
    pairs = {(a, b) for chain in CHAINS for a, b in itertools.pairwise(chain)}
    assert pairs == {(parent, child) for child, parent in enumerate(PARENTS) if parent >= 0}


def test_batches_are_clips_side_by_side():
    clips = torch.stack([joints(20, seed) for seed in range(3)])
    assert torch.allclose(features(clips)[1], features(clips[1]))
    assert torch.allclose(joints_of(features(clips))[2], joints_of(features(clips[2])))


def test_gradients_flow_both_ways():
    true = joints(6, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: joints_of(features(x)), true)


def test_a_motion_gives_its_features_again():
    vectors = features(joints(30, 7).float())
    motion = from_features(vectors)
    assert motion.floor == 0
    assert motion.fps == 20
    assert motion.names == NAMES
    assert torch.allclose(joints_of(to_features(motion)), joints_of(vectors)[:-1], atol=1e-5)
    assert torch.equal(motion.contacts, vectors[:, 259:] > 0.5)


def test_what_is_no_features_is_refused():
    with pytest.raises(InputError, match=r"22, 3"):
        features(torch.zeros(5, 21, 3))
    with pytest.raises(InputError, match="263 columns, not 251"):
        joints_of(torch.zeros(5, 251))
    vectors = features(joints(30, 7).float())
    scored = (vectors - vectors.mean(0)) / (vectors.std(0) + 1e-3)
    with pytest.raises(InputError, match="z-scored"):
        from_features(scored)
    with pytest.raises(InputError, match="not finite"):
        from_features(torch.where(torch.arange(29)[:, None] == 4, torch.nan, vectors))
    with pytest.raises(InputError, match=r"a\.npy: a motion of 0 frames does not move"):
        from_features(torch.zeros(0, 263), "a.npy")


@pytest.mark.parametrize("column", [0, 3, 70, 200, 260])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_are_refused_with_their_place(column, value):
    vectors = features(joints(30, 7).float())
    vectors[5, column] = vectors[9, 262] = value
    with pytest.raises(
        InputError, match=rf"a\.npy: features that are not finite .*: 2, the first in frame 5, column {column} "
    ):
        from_features(vectors, "a.npy")


@pytest.mark.real
def test_the_sample_clip_is_read_and_made(real):
    true = torch.from_numpy(np.load(real / "motion" / "humanml3d_012314_joints.npy"))
    given = torch.from_numpy(np.load(real / "motion" / "humanml3d_012314_vecs.npy"))
    assert (joints_of(given) - true).abs().max() < 3e-7
    made = features(true.double())
    assert (joints_of(made) - true[:-1]).abs().max() < 1e-4
    assert (made[:85] - given[:85]).abs().max() < 2e-5, "all 263 columns, rotations and contacts too"
    assert math.isclose(float((made - given[:-1])[:, 3:4].abs().max()), 0, abs_tol=1e-6)
