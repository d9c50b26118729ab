"""Working inside boxes around objects must not be seen in the result: values and gradients are those of whole pictures."""

import pytest
import torch

from visviva.physics import ConstantAcceleration, Measurement, boxes
from visviva.physics.kinematics import erode, inner_velocity, object_velocity


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(boxes, "SMALL", 0)


def scene(clips=2, steps=5, count=2, side=24):
    """Random flow and soft masks of bodies, at the border and inside, one of them missing in one frame."""
    make = torch.Generator().manual_seed(0)
    flow = torch.randn(clips, steps, 2, side, side + 8, generator=make)
    confidence = torch.rand(clips, steps, 1, side, side + 8, generator=make)
    at = torch.randint(0, side, (clips, steps + 1, count, 1, 1, 2), generator=make)
    ys, xs = torch.arange(side)[:, None], torch.arange(side + 8)
    apart = (ys - at[..., 1]) ** 2 + (xs - at[..., 0]) ** 2
    masks = (1.5 - apart / 12).clamp(0, 1)
    masks[0, 2, 1] = 0
    return flow, masks, confidence


def whole(flow, masks, confidence, pixels):
    """The plain way, over all pixels."""
    masks = masks[:, :-1]
    inner = erode(masks, pixels)
    enough = inner.sum((-2, -1), keepdim=True) >= 0.5 * masks.sum((-2, -1), keepdim=True)
    return object_velocity(flow, torch.where(enough, inner, masks), confidence)


@pytest.mark.parametrize("pixels", [0, 1, 2])
@pytest.mark.parametrize("trusted", [True, False])
def test_boxes_give_the_velocity_area_and_gradient_of_the_whole_picture(pixels, trusted):
    flow, masks, confidence = scene()
    confidence = confidence if trusted else None
    assert boxes.around(masks, masks.sum(-1), pixels) is not None
    one, two = flow.clone().requires_grad_(), flow.clone().requires_grad_()
    velocity, area, clean = inner_velocity(one, masks, confidence, pixels)
    wanted, wanted_area = whole(two, masks, confidence, pixels)
    assert bool(clean.all())
    assert torch.allclose(velocity, wanted, atol=1e-5)
    assert torch.allclose(area, wanted_area, rtol=1e-5)
    assert torch.allclose(inner_velocity(flow, masks, confidence, pixels)[0], wanted, atol=1e-5)  # the way without a gradient
    velocity.square().sum().backward()
    wanted.square().sum().backward()
    assert torch.allclose(one.grad, two.grad, atol=1e-5)


def test_a_clip_that_is_not_finite_is_named_and_leaves_the_others_and_all_gradients_alone():
    flow, masks, _ = scene(clips=3)
    inside = (masks[0, 0, 0] > 0.5).nonzero()[0].tolist()
    flow[0, 0, 0, inside[0], inside[1]], masks[1, 0, 0, 0, 0] = float("nan"), float("inf")
    flow.requires_grad_()
    velocity, _, clean = inner_velocity(flow, masks)
    assert clean.tolist() == [False, False, True]
    assert not bool(velocity[:2].any())
    velocity.sum().backward()
    assert torch.isfinite(flow.grad).all()


def test_objects_that_fill_the_picture_and_empty_pictures_are_measured():
    flow, masks, _ = scene()
    assert boxes.around(torch.ones_like(masks), torch.ones_like(masks[..., 0]), 1) is None
    velocity, _, _ = inner_velocity(flow, torch.ones_like(masks))
    assert torch.allclose(velocity, flow.mean((-2, -1))[:, :, None].expand_as(velocity), atol=1e-5)
    assert not bool(inner_velocity(flow, torch.zeros_like(masks))[0].any())


def test_the_law_says_the_same_with_and_without_boxes(monkeypatch):
    flow, masks, _ = scene(side=48)
    seen = Measurement(fps=torch.full((2,), 30.0), flow=flow, masks=masks, noise=torch.full((2,), 0.01))
    inside = ConstantAcceleration()(seen)
    monkeypatch.setattr(boxes, "SMALL", 2**62)
    outside = ConstantAcceleration()(seen)
    for name in ("value", "sigma", "field"):
        assert torch.allclose(getattr(inside, name), getattr(outside, name), rtol=1e-4, atol=1e-6), name


def test_erosion_is_the_minimum_over_a_diamond():
    masks = torch.rand(2, 1, 2, 7, 9, generator=torch.Generator().manual_seed(0))
    around = torch.nn.functional.pad(masks.flatten(0, 2)[:, None], (1, 1, 1, 1), mode="replicate")[:, 0].view(2, 1, 2, 9, 11)
    wanted = torch.stack(
        [
            around[..., 1:-1, 1:-1],
            around[..., :-2, 1:-1],
            around[..., 2:, 1:-1],
            around[..., 1:-1, :-2],
            around[..., 1:-1, 2:],
        ]
    ).amin(0)
    assert torch.equal(erode(masks, 1), wanted)
