"""Learned inverse dynamics: bags of markers, losses at the truth, and a forward net that sees no future."""

import pytest
import torch

from visviva.errors import InputError
from visviva.models.imdy import ForwardDynamics, ImDy, InverseDynamics, Predicted, Truth, losses, treadmill, windows
from visviva.models.imdy.losses import WEIGHTS, total


def walkers(count=2, frames=20, markers=30, seed=0):
    return torch.randn(count, frames, markers, 3, generator=torch.Generator().manual_seed(seed)) * 0.3


def test_windows_are_about_their_current_frame():
    clips = walkers()
    seen = windows(clips)
    assert seen.shape == (2, 15, 6, 30, 3)
    assert torch.equal(seen[:, 4, 2], clips[:, 6])
    put = treadmill(seen)
    assert float(put[:, :, 2, :, :2].mean(2).abs().max()) < 1e-6
    assert torch.equal(put[..., 2], seen[..., 2])
    assert torch.allclose(treadmill(seen + torch.tensor([5.0, -3, 0])), put, atol=1e-5)


def test_markers_are_a_bag():
    torch.manual_seed(0)
    net, window = InverseDynamics(), windows(walkers()).flatten(0, 1)
    found, mixed = net(window), net(window[:, :, torch.randperm(30)])
    for name in ("torque", "force", "contact"):
        assert torch.allclose(getattr(found, name), getattr(mixed, name), atol=1e-5)
    assert torch.allclose(found.torque_way.norm(dim=-1), torch.ones(30, 21), atol=1e-5)
    assert float(found.torque_size.min()) >= 0
    net.limit.fill_(0.01)
    assert float(net(window).torque_size.max()) <= 0.01


def test_losses_vanish_at_the_truth_and_teach():
    random = torch.Generator().manual_seed(0)
    torque, force = (
        torch.randn(8, 21, 3, generator=random),
        torch.randn(8, 1, 4, 3, generator=random).expand(8, 2, 4, 3).clone(),
    )
    force[:, :, 1] = 0
    size = force.norm(dim=-1)
    logits = torch.where(size > 0, 40.0, -40.0)
    true = Predicted(
        torch.nn.functional.normalize(torque, dim=-1),
        torque.norm(dim=-1),
        force / size.clamp(min=1e-9)[..., None],
        size,
        logits,
    )
    parts = losses(true, Truth(torque, force))
    assert set(parts) | {"next_marker"} == set(WEIGHTS)
    assert {name for name, value in parts.items() if float(value) > 1e-5} == set()
    worse = losses(Predicted(-true.torque_way, true.torque_size + 1, true.force_way, size + 1, -logits), Truth(torque, force))
    assert float(worse["torque_way"]) == pytest.approx(2, abs=1e-5)
    assert float(worse["torque_size"]) == pytest.approx(1, abs=1e-5)
    assert float(worse["torque_order"]) < 1e-6, "all magnitudes are off alike"
    assert float(worse["contact"]) == pytest.approx(40, abs=1e-3)
    assert float(total(worse)) > 3


def test_the_forward_net_sees_no_future_and_begins_at_constant_velocity():
    torch.manual_seed(0)
    net, window = ForwardDynamics(), windows(walkers()).flatten(0, 1)
    torque, force = torch.zeros(30, 21, 3), torch.zeros(30, 2, 4, 3)
    found = net(window, torque, force)
    later = window.clone()
    later[:, 3:] = 7.0
    assert torch.equal(net(later, torque, force), found)
    assert float((found - (2 * window[:, 2] - window[:, 1])).abs().max()) < 0.05
    assert float((net(window, torque + 1, force) - found).abs().max()) > 1e-6
    order = torch.randperm(30)
    assert torch.allclose(net(window[:, :, order], torque, force), found[:, order], atol=1e-5)


def test_saved_networks_come_back(tmp_path):
    torch.manual_seed(0)
    model = ImDy(InverseDynamics(), ForwardDynamics())
    model.save(tmp_path / "model.safetensors")
    other = ImDy.load(tmp_path / "model.safetensors")
    clips = walkers()
    assert torch.allclose(model(clips, 30.0).torque, other(clips, 30.0).torque, atol=5e-3)
    assert other.forward is not None
    assert list(other(clips, 29.97).frames) == list(range(2, 17))


def test_bad_input_is_refused(tmp_path):
    model = ImDy(InverseDynamics())
    with pytest.raises(InputError, match="knows 30"):
        model(walkers(), 20.0)
    with pytest.raises(InputError, match="a window is 6"):
        model(walkers(frames=5), 30.0)
    with pytest.raises(InputError, match="not finite"):
        model(walkers() * torch.nan, 30.0)
    with pytest.raises(InputError, match="millimetres"):
        model(walkers() * 1000, 30.0)
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is not a safetensors file"):
        ImDy.load(tmp_path / "no.safetensors")
    with pytest.raises(InputError, match="no such file"):
        ImDy.load(tmp_path / "none.safetensors")
