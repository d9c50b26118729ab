"""The three readings of constant acceleration on motion whose flow is known exactly.

The scene is a disc of radius 12 px with a logistic edge of 1 px in 128 x 128, 32 frames, flow = mask * displacement; the
numbers are the squared two-norm of the second difference of flow, averaged as the column says.
"""

import pytest
import torch

from visviva.errors import InputError
from visviva.physics import ConstantAcceleration, Measurement

t = torch.arange(32, dtype=torch.float64)
EULERIAN = ConstantAcceleration(form="eulerian")
IN_MASK = ConstantAcceleration(form="eulerian", region="mask")
OBJECT = ConstantAcceleration(form="object", window=3)


def disc(x, y, size=128, radius=12.0):
    """Exact measurement of a disc with its centre at (x(t), y(t)) [px]."""
    at = torch.arange(size, dtype=torch.float64)
    distance = torch.hypot(at[None, None, :] - (x + 0 * t)[:, None, None], at[None, :, None] - (y + 0 * t)[:, None, None])
    mask = torch.sigmoid(radius - distance)
    step = torch.stack([x + 0 * t, y + 0 * t], dim=1).diff(dim=0)
    flow = mask[:-1, None] * step[:, :, None, None]
    return Measurement(fps=torch.tensor([16.0]), flow=flow[None], masks=mask[None, :, None])


ROWS = {  # motion, full frame, inside the mask, object mean; printed digits
    "static": (64 + 0 * t, 64 + 0 * t, 0.0, 0.0),
    "1 px/frame": (30 + t, 64 + 0 * t, 5.4e-5, None),
    "2 px/frame": (30 + 2 * t, 64 + 0 * t, 2.7e-3, 0.046),
    "3 px/frame": (16 + 3 * t, 64 + 0 * t, 2.2e-2, None),
    "fall 0.06": (64 + 0 * t, 20 + 0.03 * t**2, 2.3e-4, None),
    "fall 0.10": (64 + 0 * t, 20 + 0.05 * t**2, 3.6e-3, None),
    "fall 0.15": (64 + 0 * t, 20 + 0.075 * t**2, 2.6e-2, 0.45),
    "fall 0.20": (64 + 0 * t, 16 + 0.10 * t**2, 9.7e-2, None),
}


@pytest.mark.parametrize("row", ROWS)
def test_perfect_motion_by_form(row):
    x, y, frame, inside = ROWS[row]
    seen = disc(x, y)
    assert float(EULERIAN(seen).value) == pytest.approx(frame, rel=0.03)
    if inside is not None:
        assert float(IN_MASK(seen).value) == pytest.approx(inside, rel=0.03)
    assert float(OBJECT(seen).value) < 1e-8
    assert float(ConstantAcceleration(form="object")(seen).value) < 1e-8


def test_the_eulerian_form_prefers_a_slow_violation_to_a_fast_truth_and_the_object_form_does_not():
    generator = torch.Generator().manual_seed(0)
    jittered = disc(30 + 2 * t + 0.3 * torch.randn(32, generator=generator, dtype=torch.float64), 64 + 0 * t)
    fall = disc(*ROWS["fall 0.20"][:2])
    assert float(EULERIAN(jittered).value) < float(EULERIAN(fall).value)
    assert float(OBJECT(jittered).value) > 0.5 > 1e-8 > float(OBJECT(fall).value)


def test_the_material_form_separates_by_three_orders_of_magnitude_without_masks():
    material = ConstantAcceleration(form="material")
    generator = torch.Generator().manual_seed(0)
    shake = 0.5 * torch.randn(2, 32, generator=generator, dtype=torch.float64)
    values = {
        name: float(material(disc(x, y).with_(masks=None)).value)
        for name, (x, y) in {
            "constant": (30 + 2 * t, 64 + 0 * t),
            "fall": (64 + 0 * t, 20 + 0.075 * t**2),
            "parabola": (20 + 2 * t, 60 - 2 * t + 0.05 * t**2),
            "jitter": (30 + 2 * t + shake[0], 64 + shake[1]),
        }.items()
    }
    assert max(values["constant"], values["fall"], values["parabola"]) < 5e-3
    assert values["jitter"] > 1.0


@pytest.mark.parametrize("g", [0.0, 0.1, 0.7, 3.0])
@pytest.mark.parametrize("form", ["eulerian", "material"])
def test_a_full_frame_texture_in_uniform_acceleration_is_perfect(g, form):
    step = (0.3 + g * torch.arange(9, dtype=torch.float64))[None, :, None, None, None].expand(1, 9, 2, 12, 12)
    assert float(ConstantAcceleration(form=form)(Measurement(fps=torch.tensor([16.0]), flow=step)).value) < 1e-10


@pytest.mark.parametrize("form", ["eulerian", "material", "object"])
def test_cubic_motion_gives_36_k_squared_everywhere(form):
    k, s = 0.01, torch.arange(9, dtype=torch.float64)
    flow = torch.zeros(1, 9, 2, 12, 12, dtype=torch.float64)
    flow[:, :, 1] = (k * (3 * s**2 + 3 * s + 1))[None, :, None, None]
    masks = torch.ones(1, 10, 1, 12, 12, dtype=torch.float64)
    seen = Measurement(fps=torch.tensor([16.0]), flow=flow, masks=masks if form == "object" else None)
    residual = ConstantAcceleration(form=form, window=3)(seen)
    assert float(residual.value) == pytest.approx(36 * k**2, rel=1e-6)
    inside = residual.field[0, 1:-1] if form == "object" else residual.field[0]
    if form == "material":
        assert float((inside > 0).double().mean()) > 0.5  # it looks where the flow is faster than 0.25 px/frame
        inside = inside[inside > 0]
    assert torch.allclose(inside, torch.full_like(inside, 36 * k**2))


def test_auto_takes_objects_where_masks_are_and_material_otherwise():
    fall = disc(*ROWS["fall 0.15"][:2])
    auto = ConstantAcceleration()
    assert float(auto(fall).value) == float(ConstantAcceleration(form="object")(fall).value)
    bare = fall.with_(masks=None)
    assert float(auto(bare).value) == float(ConstantAcceleration(form="material")(bare).value)


def test_the_centroid_form_reads_the_masks_alone_and_carries_gradient_into_them():
    fall = disc(*ROWS["fall 0.15"][:2])
    masks = fall.masks.clone().requires_grad_()
    law = ConstantAcceleration(form="centroid")
    assert float(law(Measurement(fps=fall.fps, masks=masks)).value.detach()) < 1e-5
    stopped = disc(64 + 0 * t, 20 + 0.075 * t.clamp(max=16) ** 2).masks.requires_grad_()
    value = law(Measurement(fps=fall.fps, masks=stopped)).value
    value.sum().backward()
    assert float(value.detach()) > 0.5
    assert float(stopped.grad.abs().sum()) > 0


@pytest.mark.parametrize("window", [3, 5, None])
@pytest.mark.parametrize("form", ["object", "material", "eulerian", "centroid"])
def test_contact_windows_are_masked_out(form, window):
    bounce = 20 + torch.where(t < 16, 2 * t, 64 - 2 * t)
    seen = disc(64 + 0 * t, bounce)
    contact = torch.zeros(1, 32, dtype=torch.bool)
    contact[:, 16] = True
    law = ConstantAcceleration(form=form, window=window)
    free = law(seen.with_(contact=contact))
    assert float(law(seen).value) > 5 * float(free.value)
    assert bool(free.valid)
    if form in ("object", "centroid"):
        assert float(free.value) < 1e-6
    everywhere = law(seen.with_(contact=torch.ones_like(contact)))
    assert not bool(everywhere.valid)
    assert float(everywhere.value) == 0


@pytest.mark.parametrize("window", [3, 7, None])
def test_noise_is_subtracted_and_sigma_predicts_the_scatter(window):
    generator = torch.Generator().manual_seed(0)
    noise, clips = 0.1, 600
    velocity = torch.randn(clips, 16, 2, 1, 1, generator=generator, dtype=torch.float64) * noise
    seen = Measurement(
        fps=torch.full((clips,), 30.0), flow=velocity.expand(-1, -1, -1, 4, 4), masks=torch.ones(clips, 17, 1, 4, 4).double(),
        noise=torch.full((clips,), noise, dtype=torch.float64),
    )  # fmt: skip
    raw = ConstantAcceleration(form="object", window=window, subtract_noise=False, erode=0)(seen)
    assert float(raw.value.mean()) == pytest.approx(12 * noise**2, rel=0.05)
    assert float(raw.sigma.mean()) == pytest.approx(float(raw.value.std()), rel=0.25)
    clean = ConstantAcceleration(form="object", window=window, erode=0)(seen)
    assert float(clean.value.mean()) < 0.6 * 12 * noise**2
    assert float((clean.value == 0).double().mean()) > 0.4


def test_normalisation_takes_away_the_premium_on_slowness():
    rough = disc(20 + 2 * t + 0.4 * torch.sin(2.5 * t), 64 + 0 * t)
    slow = disc(20 + 1 * t + 0.2 * torch.sin(2.5 * t), 64 + 0 * t)
    plain, scaled = ConstantAcceleration(), ConstantAcceleration(normalise=True, speed_floor=0.05)
    assert float(plain(slow).value) < 0.3 * float(plain(rough).value)
    assert float(scaled(slow).value) > 0.8 * float(scaled(rough).value)


def test_objects_are_judged_one_by_one():
    good, bad = disc(30 + t, 30 + 0 * t), disc(30 + t + 0.5 * torch.sin(3 * t), 90 + 0 * t)
    both = good.with_(flow=good.flow + bad.flow, masks=torch.cat([good.masks, bad.masks], dim=2))
    half = 0.5 * float(OBJECT(bad).value)
    assert float(OBJECT(both).value) == pytest.approx(half, rel=0.02)


@pytest.mark.parametrize("form", ["object", "material", "eulerian"])
def test_gradients_of_the_residual_agree_with_finite_differences(form):
    generator = torch.Generator().manual_seed(0)
    flow = torch.randn(1, 5, 2, 6, 6, generator=generator, dtype=torch.float64) * 0.3 + 1.0
    masks = torch.ones(1, 6, 1, 6, 6, dtype=torch.float64)
    law = ConstantAcceleration(form=form, erode=0)

    def value(f):
        return law(Measurement(fps=torch.tensor([16.0]), flow=f, masks=masks)).value

    assert torch.autograd.gradcheck(value, (flow.requires_grad_(),), atol=1e-4, eps=1e-5)


def test_masks_get_no_gradient_from_the_object_form():
    fall = disc(20 + t**2 / 20 + torch.sin(t), 64 + 0 * t)
    masks = fall.masks.clone().requires_grad_()
    flow = fall.flow.clone().requires_grad_()
    ConstantAcceleration()(fall.with_(masks=masks, flow=flow)).value.sum().backward()
    assert masks.grad is None or float(masks.grad.abs().sum()) == 0
    assert float(flow.grad.abs().sum()) > 0


def test_options_that_cannot_be_meant_are_refused_in_one_sentence():
    with pytest.raises(InputError, match="not a form"):
        ConstantAcceleration(form="lagrangian")
    with pytest.raises(InputError, match="window 2 is too short"):
        ConstantAcceleration(window=2)
    with pytest.raises(InputError, match="speed_floor"):
        ConstantAcceleration(speed_floor=0.0)
    short = Measurement(fps=torch.tensor([16.0]), flow=torch.zeros(1, 2, 2, 8, 8))
    with pytest.raises(InputError, match="needs 4 frames"):
        ConstantAcceleration()(short)
    with pytest.raises(InputError, match="needs 'masks'"):
        ConstantAcceleration(form="object")(short)
