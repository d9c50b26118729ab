"""What no law may depend on: which clip comes first, where in the picture things happen, left and right, up and down."""

from functools import cache

import pytest
import torch
from all_measured import FORMS, measured
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.physics import LAWS

CLIPS = 3
GRAVITY = {"free_fall", "friction", "pendulum", "energy", "gravity_direction"}
"""Laws that know which way is down; the others hold whatever way the picture is turned."""
POWER = {"constant_acceleration": 2, "angular_momentum": 2, "reference_flow": 1, "permanence": 0, "mass_conservation": 0}
"""Powers of the unit of length that laws of flow come in (masks keep their pixels); others are zoomed in their own tests."""
ALONG = LAWS["constant_acceleration"](form="material")
"""Follows flow along itself: a longer one leads elsewhere."""

every_law = pytest.mark.parametrize("law", FORMS, ids=repr)
few = settings(max_examples=6, deadline=None)


@cache
def clips(law):
    """Clips whose speed and opacity waver, beside the true ones."""
    seen = mapped(measured(law, clips=CLIPS), lambda x: x.detach())
    waver = 1 + 0.2 * torch.arange(17.0).mul(2.0).cos().view(-1, 1, 1, 1)
    return seen.with_(flow=seen.flow * waver[1:], masks=seen.masks * waver.clamp(max=1))


def mapped(seen, of_map, of_flow=None):
    """The measurement with every picture changed by ``of_map``, flow by ``of_flow``."""
    flow = (of_flow or of_map)(seen.flow)
    reference = None if seen.reference is None else mapped(seen.reference, of_map, of_flow)
    own = {name: getattr(seen, name).detach() for name in ("features", "surprise")}
    return seen.with_(flow=flow, masks=of_map(seen.masks), reference=reference, **own)


def assert_same(law, one, other, order=slice(None)):
    before, after = law(one), law(other)
    assert torch.equal(after.valid, before.valid[order])
    assert torch.allclose(after.value, before.value[order], rtol=2e-3, atol=1e-5 * float(before.value.max()) + 1e-9)


@every_law
@few
@given(order=st.permutations(range(CLIPS)))
def test_clips_come_in_any_order(law, order):
    seen = clips(law)
    assert_same(law, seen, seen._each(lambda x: x[order]), order)


@every_law
@few
@given(right=st.integers(0, 16), down=st.integers(0, 16))
def test_things_happen_anywhere_in_the_picture(law, right, down):
    def placed(x, y):
        return lambda m: torch.nn.functional.pad(m, (x, 16 - x, y, 16 - y))

    seen = clips(law)
    assert_same(law, mapped(seen, placed(8, 8)), mapped(seen, placed(right, down)))


@every_law
@few
@given(quarters=st.integers(0, 3), mirror=st.booleans())
def test_the_picture_may_be_mirrored_and_turned(law, quarters, mirror):
    quarters = 0 if law.name in GRAVITY else quarters

    def turned(x):
        return torch.rot90(x.flip(-1) if mirror else x, quarters, (-2, -1))

    def turned_flow(flow):
        right, below = turned(flow).unbind(2)
        right = -right if mirror else right
        for _ in range(quarters):
            right, below = below, -right
        return torch.stack([right, below], 2)

    seen = clips(law)
    other = mapped(seen, turned, turned_flow)
    force = None if seen.force is None else turned_flow(seen.force[:, :, :, None, None])[..., 0, 0]
    assert_same(law, seen, other.with_(force=force))


@pytest.mark.parametrize("law", [law for law in FORMS if law.name in POWER and law != ALONG], ids=repr)
@few
@given(zoom=st.floats(0.5, 2.0))
def test_lengths_come_in_the_unit_that_the_law_says(law, zoom):
    by_masks = getattr(law, "form", "") == "centroid"
    power = 0 if by_masks else POWER[law.name]
    seen = clips(law)
    larger = mapped(seen, lambda x: x, lambda flow: zoom * flow)
    larger = larger if by_masks else larger.with_(noise=zoom * seen.noise)
    before, after = law(seen), law(larger)
    assert torch.equal(after.valid, before.valid)
    assert torch.allclose(after.value, zoom**power * before.value, rtol=2e-3, atol=1e-6)


def test_features_come_in_any_order():
    law = LAWS["mass_conservation"]()
    seen = clips(law)
    places = torch.randperm(seen.features.shape[1], generator=torch.Generator().manual_seed(0))
    mixed = seen.with_(features=seen.features[:, places].roll(3, -1))
    mixed = mixed.with_(reference=seen.reference.with_(features=seen.reference.features[:, places].roll(3, -1)))
    assert_same(law, seen, mixed)


def test_these_clips_break_most_laws():
    """Numbers that are all zero would say nothing above."""
    broken = {law.name for law in FORMS if float(law(clips(law)).value.max()) > 0}
    assert broken >= {"constant_acceleration", "angular_momentum", "reference_flow", "mass_conservation", "surprise"}, broken
    assert len(broken) >= 9, broken
