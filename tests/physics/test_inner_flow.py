"""The kernel of mean flow inside objects: what the torch way gives, whatever the pictures, and one sentence where it cannot."""

import pytest
import torch

from visviva.errors import InputError
from visviva.physics import ConstantAcceleration, Measurement
from visviva.physics.kinematics import inner_velocity, refuse_shapes
from visviva.physics.laws.second_difference import lines_in_runs


def scene(clips=3, steps=5, count=2, height=20, width=48, seed=0):
    """Random flow and soft masks at the borders and inside; thin ones, which erosion would halve, and a missing one."""
    make = torch.Generator().manual_seed(seed)
    flow = torch.randn(clips, steps, 2, height, width, generator=make)
    masks = torch.zeros(clips, steps + 1, count, height, width)
    at = torch.randint(0, 2**20, (clips, steps + 1, count, 2), generator=make)
    ys, xs = torch.arange(height)[:, None], torch.arange(width)
    apart = (ys - at[..., 0, None, None] % height) ** 2 + (xs - at[..., 1, None, None] % width) ** 2
    masks = (1.5 - apart / 20).clamp(0, 1)
    masks[0, :, 0] = 0
    masks[0, :, 0, 3, 5:30] = 0.7
    masks[1, 2, 1] = 0
    return flow, masks


@pytest.mark.parametrize("pixels", [0, 1])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_kernel_gives_velocity_and_area_of_the_torch_way(pixels, seed):
    flow, masks = scene(clips=9, seed=seed)
    found = inner_velocity(flow, masks, pixels=pixels, method="warp")
    wanted = inner_velocity(flow, masks, pixels=pixels)
    assert torch.allclose(found[0], wanted[0], atol=1e-5)
    assert torch.allclose(found[1], wanted[1], rtol=1e-5, atol=1e-6)
    assert torch.equal(found[2], wanted[2])


@pytest.mark.parametrize("method", ["torch", "warp"])
def test_only_flow_inside_of_masks_is_looked_at(method):
    flow, masks = scene()
    clean = inner_velocity(flow, masks, method=method)[0]
    hurt = torch.where((masks[:, :-1] == 0).all(2, keepdim=True), torch.tensor(float("nan")), flow)
    velocity, _, good = inner_velocity(hurt, masks, method=method)
    assert bool(good.all())
    assert torch.allclose(velocity, clean, atol=1e-5)
    inside = masks[2, 1, 0].flatten().argmax()
    hurt[2, 1].flatten(1)[0, inside] = float("inf")
    velocity, _, good = inner_velocity(hurt, masks, method=method)
    assert good.tolist() == [True, True, False]
    assert not bool(velocity[2].any())
    assert torch.allclose(velocity[:2], clean[:2], atol=1e-5)


def test_masks_that_are_not_finite_name_their_clip():
    flow, masks = scene()
    masks[1, 0, 0, 0, 0] = float("nan")
    assert inner_velocity(flow, masks, method="warp")[2].tolist() == [True, False, True]


def test_no_objects_and_no_clips_are_no_error():
    flow, masks = scene()
    assert inner_velocity(flow, masks[:, :, :0], method="warp")[0].shape == (3, 5, 0, 2)
    assert inner_velocity(flow[:0], masks[:0], method="warp")[0].shape == (0, 5, 2, 2)


def test_the_law_says_the_same_by_both_methods_with_contacts_and_without():
    flow, masks = scene(steps=8)
    for contact in (None, torch.arange(9).expand(3, 9) == 4):
        seen = Measurement(fps=torch.full((3,), 30.0), flow=flow, masks=masks, contact=contact)
        one, two = (ConstantAcceleration(form="object", method=method)(seen) for method in ("torch", "warp"))
        assert torch.equal(one.valid, two.valid)
        assert torch.allclose(one.value, two.value, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"confidence": torch.ones(3, 5, 1, 20, 48)}, "confidence"),
        ({"pixels": 2}, "eroded by 2"),
        ({"flow": torch.zeros(3, 5, 2, 20, 48, dtype=torch.float64)}, "float64"),
        ({"flow": torch.zeros(3, 5, 2, 20, 48, requires_grad=True)}, "gradients"),
        ({"flow": torch.zeros(3, 5, 2, 20, 40), "masks": torch.zeros(3, 6, 2, 20, 40)}, "40 pixels wide"),
    ],
)
def test_what_the_kernel_cannot_is_refused_with_the_remedy(change, words):
    flow, masks = scene()
    with pytest.raises(InputError, match=words) as told:
        inner_velocity(**{"flow": flow, "masks": masks, "method": "warp", **change})
    assert "method='torch'" in str(told.value)


@pytest.mark.parametrize("method", ["torch", "warp"])
def test_fewer_masks_than_flow_are_refused(method):
    flow, masks = scene()
    with pytest.raises(InputError, match="T being t"):
        inner_velocity(flow, masks[:, :4], method=method)


@pytest.mark.parametrize(
    "cut",
    [
        lambda f, m: (f, m[:, :4]),
        lambda f, m: (f, m[:1]),
        lambda f, m: (f[:1], m),
        lambda f, m: (f, m[..., :12, :]),
        lambda f, m: (f, m[..., :32]),
        lambda f, m: (f[..., :32], m),
        lambda f, m: (f, m[:, :, 0]),
        lambda f, m: (torch.cat([f, f], 2), m),
    ],
)
def test_masks_that_are_not_the_flows_are_refused_before_anything_is_read(cut):
    with pytest.raises(InputError, match="of the same clips and size"):
        refuse_shapes(*cut(*scene()))


def test_views_of_other_strides_and_offsets_are_read_right():
    flow, masks = scene()
    turned = flow.transpose(-1, -2).contiguous().transpose(-1, -2)
    shifted = torch.empty(masks.numel() + 1)[1:].view_as(masks).copy_(masks)
    for one, two in ((turned, shifted), (flow[:1].expand(3, -1, -1, -1, -1), masks[:1, :1].expand(3, 6, -1, -1, -1))):
        found, wanted = (inner_velocity(one, two, method=method) for method in ("warp", "torch"))
        assert torch.allclose(found[0], wanted[0], atol=1e-5)


def test_methods_that_do_not_exist_or_fit_are_refused():
    with pytest.raises(InputError, match="'numpy'"):
        ConstantAcceleration(form="object", method="numpy")
    with pytest.raises(InputError, match="'warp' with form 'auto'"):
        ConstantAcceleration(method="warp")


def test_clips_that_are_one_run_are_fitted_as_those_with_something_unseen():
    velocity = torch.randn(4, 7, 2, 2, generator=torch.Generator().manual_seed(0))
    short = lines_in_runs(velocity, torch.ones(4, 7, 2, dtype=torch.bool), ask=True)
    seen = torch.ones(4, 8, 2, dtype=torch.bool)
    seen[:, 7] = False
    long = lines_in_runs(torch.nn.functional.pad(velocity, (0, 0, 0, 0, 0, 1)), seen)
    for one, other in zip(short, long, strict=True):
        assert torch.allclose(one, other[:, :7], atol=1e-5)
