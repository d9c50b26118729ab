"""The three anchors against closed forms: motion floor, mass conservation, reference flow."""

import pytest
import torch

from visviva.errors import InputError
from visviva.physics import MassConservation, Measurement, MotionFloor, ReferenceFlow
from visviva.physics.laws.motion_floor import CAP

FPS = torch.tensor([30.0])


def moving(speed, size=8, masks=None, **more):
    """A clip of five frames whose flow is ``speed`` (a number, or one per step) to the right everywhere."""
    flow = torch.zeros(1, 4, 2, size, size)
    flow[:, :, 0] = torch.as_tensor(speed, dtype=torch.float32).reshape(-1, 1, 1)
    return Measurement(fps=FPS, flow=flow, masks=masks, **more)


@pytest.mark.parametrize(("speed", "value"), [(0.0, 1.0), (0.25, 0.5), (0.5, 0.0), (3.0, 0.0)])
def test_the_floor_is_a_share_of_what_is_missing(speed, value):
    assert float(MotionFloor(least=0.5)(moving(speed)).value) == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(("speed", "value"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_a_relative_floor_is_a_fraction_of_the_reference(speed, value):
    seen = moving(speed).with_(reference=moving(2.0))
    assert float(MotionFloor(fraction=0.5)(seen).value) == pytest.approx(value, abs=1e-5)


def test_a_clip_of_uneven_speed_never_falls_short_of_itself():
    uneven = moving([0.0, 8.0, 0.0, 0.5])
    assert float(MotionFloor(fraction=0.8)(uneven.with_(reference=uneven)).value) == 0.0


def test_one_frame_of_wild_flow_does_not_pay_for_standing_still():
    assert float(MotionFloor(least=0.5)(moving([50.0, 0.0, 0.0, 0.0])).value) == pytest.approx(1 - CAP / 4, abs=1e-5)


def test_an_object_seen_in_every_other_frame_stays_below_every_floor():
    assert float(MotionFloor(least=0.5)(moving([50.0, 0.0, 50.0, 0.0])).value) == pytest.approx(1 - CAP / 2, abs=1e-5)


def test_a_free_fall_from_rest_passes_a_floor_at_its_own_mean_speed():
    fall = [0.5, 1.5, 2.5, 3.5]
    floor = 0.8 * sum(fall) / len(fall)
    assert float(MotionFloor(least=floor)(moving(fall)).value) == 0.0


def test_a_lost_object_stands_still_and_the_background_does_not_count():
    masks = torch.zeros(1, 5, 2, 8, 8)
    masks[:, :, 0, :4] = 1
    seen = moving(1.0, masks=masks)
    assert float(MotionFloor(least=1.0)(seen).value) == pytest.approx(0.5, abs=1e-5)
    ground = seen.flow.clone()
    ground[..., 4:, :] = 100.0
    assert float(MotionFloor(least=1.0)(seen.with_(flow=ground)).value) == pytest.approx(0.5, abs=1e-5)


def test_a_reference_that_does_not_move_asks_for_nothing():
    masks = torch.ones(1, 5, 1, 8, 8)
    still = moving(0.01, masks=masks, noise=torch.tensor([0.02]))
    residual = MotionFloor(fraction=0.5)(moving(0.0, masks=masks).with_(reference=still))
    assert not bool(residual.valid)
    assert float(residual.value) == 0


def test_slow_clips_are_pulled_and_fast_ones_are_left_alone():
    for speed, pulled in ((0.2, True), (2.0, False)):
        flow = moving(speed).flow.requires_grad_()
        MotionFloor(least=0.5)(moving(speed).with_(flow=flow)).value.sum().backward()
        assert bool((flow.grad[:, :, 0] < 0).all()) == pulled


@pytest.mark.parametrize("options", [{"least": 0.0}, {"fraction": 0.0}, {"fraction": 1.5}])
def test_floors_that_hold_nothing_up_are_refused(options):
    with pytest.raises(InputError, match="is no floor"):
        MotionFloor(**options)
    with pytest.raises(InputError, match="masks of the clip and of its reference"):
        MotionFloor(fraction=0.5)(moving(1.0).with_(reference=moving(1.0, masks=torch.ones(1, 5, 1, 8, 8))))


def tokens(features, reference):
    return Measurement(fps=FPS, features=features, reference=Measurement(fps=FPS, features=reference))


def test_mass_is_the_distance_of_layer_normalised_tokens():
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(1, 5, 6, generator=generator), torch.randn(1, 5, 6, generator=generator)

    def normed(x):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()

    expected = (normed(one) - normed(two)).square().mean()
    assert float(MassConservation()(tokens(one, two)).value) == pytest.approx(float(expected), rel=1e-5)
    cosine = 1 - torch.nn.functional.cosine_similarity(one, two, dim=-1).mean()
    assert float(MassConservation(distance="cosine")(tokens(one, two)).value) == pytest.approx(float(cosine), rel=1e-5)
    assert float(MassConservation()(tokens(3 * one + 2, one)).value) < 1e-4  # brightness and contrast of a token do not count
    assert float(MassConservation()(tokens(-one, one)).value) == pytest.approx(4.0, rel=1e-3)


def test_mass_pulls_the_clip_and_never_the_reference():
    one, two = torch.randn(1, 5, 6).requires_grad_(), torch.randn(1, 5, 6).requires_grad_()
    MassConservation()(tokens(one, two)).value.sum().backward()
    assert float(one.grad.abs().max()) > 0
    assert two.grad is None


def test_features_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="measure clips of one size"):
        MassConservation()(tokens(torch.zeros(1, 5, 6), torch.zeros(1, 4, 6)))
    with pytest.raises(InputError, match="use 'mse' or 'cosine'"):
        MassConservation(distance="l1")


def test_reference_flow_is_the_mean_absolute_difference():
    seen = moving(1.0).with_(reference=moving(3.0))
    assert float(ReferenceFlow()(seen).value) == pytest.approx(1.0)  # 2 px/frame along x, none along y
    masks = torch.zeros(1, 5, 1, 8, 8)
    masks[..., :2, :] = 1
    apart = moving(1.0, masks=masks)
    flow = apart.flow.clone()
    flow[..., 2:, :] = 77.0
    inside = apart.with_(flow=flow, reference=moving(3.0, masks=masks))
    assert float(ReferenceFlow(within="mask")(inside).value) == pytest.approx(1.0)
    with pytest.raises(InputError, match="give clips of one size"):
        ReferenceFlow()(moving(1.0).with_(reference=moving(1.0, size=9)))
    with pytest.raises(InputError, match="use 'frame' or 'mask'"):
        ReferenceFlow(within="object")
