"""Segments and joints from markers without names: hinges and balls whose place is known."""

import pytest
import roma
import torch

from visviva.errors import InputError
from visviva.physics.bodies.markers import follow, rigid_groups, shared_joint

CENTRE = torch.tensor([0.1, -0.2, 0.4], dtype=torch.float64)


def swung(hinge, noise=0.0, frames=60):
    """Markers of two segments that share a joint, in the order 1st, 2nd, 1st, ...; the joint's place and axis over time."""
    random = torch.Generator().manual_seed(0)
    time = torch.linspace(0, 1, frames, dtype=torch.float64)
    own, other = (torch.randn(4, 3, generator=random, dtype=torch.float64) * 0.1 for _ in range(2))
    turn = roma.rotvec_to_rotmat(torch.stack([0.5 * (5 * time).sin(), time, (3 * time).cos()], -1))
    axis = torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
    bend = (1 + (6 * time).sin())[:, None] * axis
    if not hinge:
        bend = bend + torch.stack([(7 * time).cos(), (4 * time).sin(), time**2], -1)
    below = turn @ roma.rotvec_to_rotmat(bend)
    place = torch.stack([time, time**2, 1 - time], -1)
    joint = place + turn @ CENTRE
    one = place[:, None] + own @ turn.mT
    two = joint[:, None] + (other + torch.tensor([0.0, 0.0, -0.3], dtype=torch.float64)) @ below.mT
    markers = torch.stack([one, two], 2).flatten(1, 2)
    markers = markers + noise * torch.randn(markers.shape, generator=random, dtype=torch.float64)
    return markers, joint, turn @ axis


@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_segments_joints_and_axes_are_found(noise):
    markers, joint, axis = swung(hinge=True, noise=noise)
    groups = rigid_groups(markers)
    assert groups == [[0, 2, 4, 6], [1, 3, 5, 7]]
    one, two = (follow(markers[:, group]) for group in groups)
    shared = shared_joint(one, two)
    apart = one.carried(shared.centre[0]) - joint
    along = (apart * axis).sum(-1, keepdim=True)
    assert float((apart - along * axis).norm(dim=-1).mean()) < 2e-5 + 3 * noise
    assert float(((one.rotation @ shared.axis[0]) * axis).sum(-1).abs().min()) > 1 - 1e-6 - 10 * noise
    assert shared.error < 1e-4 + 5 * noise
    assert one.error == pytest.approx(noise * 3**0.5, rel=0.3, abs=1e-9)


def test_a_ball_has_one_centre():
    markers, joint, _ = swung(hinge=False)
    one, two = follow(markers[:, 0::2]), follow(markers[:, 1::2])
    shared = shared_joint(one, two)
    assert torch.allclose(one.carried(shared.centre[0]), joint, atol=1e-5)
    assert torch.allclose(two.carried(shared.centre[1]), joint, atol=1e-5)
    assert torch.allclose(one.within(one.carried(shared.centre[0])), shared.centre[0].expand(60, 3), atol=1e-9)
    assert torch.allclose(one.within(markers[:, 0::2]), one.shape.expand(60, 4, 3), atol=1e-9)


def test_what_has_no_rotation_is_refused():
    markers = swung(hinge=True)[0]
    with pytest.raises(InputError, match="on one line"):
        follow(torch.stack([markers[:, 0] + k * torch.ones(3) for k in range(3)], 1))
    with pytest.raises(InputError, match="3 frames and 3 markers"):
        follow(markers[:, :2])
    with pytest.raises(InputError, match=r"not finite: \[1\]"):
        rigid_groups(markers.index_fill(1, torch.tensor([1]), torch.nan))
