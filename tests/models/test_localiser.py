"""The violation localiser: attention MIL, masks of windows, mining, windows of clips."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.errors import InputError
from visviva.models.localiser import AttentionMIL, Masking, Mining, fit
from visviva.models.localiser.masking import highest
from visviva.models.localiser.windows import NAMES, windows_of
from visviva.physics.lapses import LAPSES
from visviva.physics.measurement import Measurement
from visviva.physics.sprites import random_sprites


def bags(count=4, windows=20, features=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, windows, features, generator=generator), torch.ones(count, windows, dtype=torch.bool)


def test_attention_sums_to_one_and_the_logit_is_its_windows_evidence():
    windows, there = bags()
    there[1, 7:] = False
    bag = AttentionMIL(6).eval()(windows, there)
    assert torch.allclose(bag.attention.sum(1), torch.ones(4))
    assert not bool(bag.attention[1, 7:].any())
    assert torch.allclose((bag.attention * bag.evidence).sum(1), bag.logit, atol=1e-6)


def test_order_of_windows_and_padding_do_not_matter():
    windows, there = bags()
    net = AttentionMIL(6).eval()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(net(windows[:, order], there).logit, net(windows, there).logit, atol=1e-6)
    padded = torch.cat([windows, torch.full((4, 3, 6), float("nan"))], dim=1)
    longer = torch.cat([there, torch.zeros(4, 3, dtype=torch.bool)], dim=1)
    assert torch.allclose(net(padded, longer).logit, net(windows, there).logit, atol=1e-6)


def test_a_bag_without_windows_is_refused():
    windows, there = bags()
    there[2] = False
    with pytest.raises(InputError, match="without windows"):
        AttentionMIL(6)(windows, there)


@settings(deadline=None, max_examples=60)
@given(
    random=st.floats(0, 1), low=st.floats(0, 1), high=st.floats(0, 1), drawn=st.floats(0.05, 1), count=st.integers(1, 30),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_sets_have_their_sizes_and_something_is_left(random, low, high, drawn, count, seed):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(3, 30, generator=generator)
    there = torch.arange(30)[None].expand(3, -1) < count
    hidden = Masking(random, low, high, drawn).hide(attention, there, generator)
    assert not bool((hidden & ~there).any())
    assert bool(((there & ~hidden).sum(1) >= 1).all())
    few = max(int(high * count), 1 if high > 0 else 0)
    most = int(random * count) + int(low * count) + few
    assert bool((hidden.sum(1) <= most).all())
    alone = Masking(low=low).hide(attention, there, generator).sum(1)
    assert bool((alone == min(int(low * count), count - 1)).all())


def test_the_top_is_hidden_and_the_share_falls_to_none():
    attention, there = torch.arange(20.0)[None], torch.ones(1, 20, dtype=torch.bool)
    hidden = Masking(high=0.2, falling=True).hide(attention, there, progress=0.0)
    assert hidden[0].nonzero()[:, 0].tolist() == [16, 17, 18, 19]
    assert int(Masking(high=0.2, falling=True).hide(attention, there, progress=1.0).sum()) == 0
    wide = Masking(high=0.2, high_drawn=0.5).hide(attention, there, torch.Generator().manual_seed(0))
    assert int(wide.sum()) == 4
    assert int(wide[0, :12].sum()) == 0


def test_highest_takes_no_more_than_there_are():
    among = torch.tensor([[True, False, True]])
    assert highest(torch.tensor([[1.0, 5.0, 2.0]]), among, torch.tensor([5])).tolist() == [[True, False, True]]


def test_a_hidden_window_never_reaches_the_student():
    windows, there = bags()
    windows.requires_grad_()
    hidden = torch.zeros_like(there)
    hidden[:, 3] = True
    AttentionMIL(6).eval()(windows, there & ~hidden).logit.sum().backward()
    assert float(windows.grad[:, 3].abs().max()) == 0
    assert float(windows.grad[:, 4].abs().max()) > 0


@pytest.mark.parametrize(("name", "value"), [("random", 1.5), ("high", -0.1), ("low", float("nan"))])
def test_shares_that_are_none_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        Masking(**{name: value})


def test_labels_of_one_kind_are_refused():
    windows, there = bags()
    with pytest.raises(InputError, match="same label"):
        fit(windows, there, torch.ones(4))


def planted(count, blatant, subtle, seed):
    """Bags of 40 windows of noise; positives hold ``blatant`` windows off by 6 and ``subtle`` ones off by 2.5 elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    windows, labels = torch.randn(count, 40, 24, generator=generator), (torch.arange(count) % 2).float()
    for i in range(1, count, 2):
        places = torch.randperm(40, generator=generator)
        windows[i, places[:blatant], 0] += 6
        windows[i, places[blatant : blatant + subtle], 1] += 2.5
    return windows, torch.ones(count, 40, dtype=torch.bool), labels


def separation(net, windows, there, labels):
    with torch.no_grad():
        logit = net(windows, there).logit
    return float((logit[labels > 0][:, None] > logit[labels == 0][None]).double().mean())


def test_mining_finds_what_plain_attention_overlooks():
    """Trained with blatant and subtle windows, tested on subtle ones only (benchmarks/localiser.py has all controls)."""
    train, test = planted(120, 2, 5, 0), planted(200, 0, 5, 1)
    plain = fit(*train, Mining(epochs=40))
    mined = fit(*train, Mining(Masking(random=0.5, high=0.1), epochs=40), start=plain)
    assert separation(plain, *test) < 0.75
    assert separation(mined, *test) > 0.85


def test_training_is_reproducible():
    train = planted(20, 1, 2, 0)
    one, two = (fit(*train, Mining(Masking(random=0.5), epochs=2), seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def measured(scene):
    drawn = scene.render()
    return Measurement(fps=torch.full((len(drawn.frames),), 32.0), flow=drawn.flow, masks=drawn.masks)


@pytest.mark.parametrize("name", sorted(LAPSES))
def test_a_lapse_changes_its_frames_and_its_windows_stand_out(name):
    scene = random_sprites(4, seed=3, frames=33)
    strength = torch.full((4,), {"blink": 2.0, "hiccup": 2.0}.get(name, 1.0))
    lapsed, wrong = LAPSES[name](scene, torch.full((4,), 14), strength)
    assert 1 <= int(wrong.sum(1).min()) <= int(wrong.sum(1).max()) <= 10
    right = ~wrong
    assert torch.allclose(lapsed.trajectory[right], scene.trajectory[right], atol=1e-5)
    assert torch.equal(lapsed.opacity[right], scene.opacity[right])
    before, after = windows_of(measured(scene)), windows_of(measured(lapsed))
    changed = (after.values - before.values).abs().amax(-1) > 1e-3
    touched = torch.stack([wrong[:, s : s + after.length].any(1) for s in after.first.tolist()], dim=1)
    assert bool(changed[touched].double().mean() > 0.8)
    assert not bool(changed[~touched].any())


def test_windows_are_finite_and_say_where():
    scene = random_sprites(2, seed=1, frames=21, objects=2)
    windows = windows_of(measured(scene))
    assert windows.values.shape == (2, 16, len(NAMES))
    assert bool(torch.isfinite(windows.values).all())
    marked = torch.zeros(2, 16)
    marked[:, 12] = 1.0
    frames = windows.per_frame(marked)
    assert bool((frames[:, 8:14] > 0).all())
    assert float(frames[:, :8].abs().max()) == float(frames[:, 14:20].abs().max()) == 0
    assert frames[:, 20].tolist() == [-math.inf] * 2  # no window of six frames, two apart, reaches it


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["positions", "area", "moments", "spin", "flow"])
def test_a_measurement_that_is_not_finite_does_not_look_calm(name, value):
    whole = measured(random_sprites(2, seed=1, frames=21, objects=2))
    whole = whole.with_(tracks=whole.tracked())
    part = (whole.flow if name == "flow" else getattr(whole.tracks, name)).clone()
    part[1, 10] = value
    broken = whole.with_(flow=part) if name == "flow" else whole.with_(tracks=whole.tracks.with_(**{name: part}))
    with pytest.raises(InputError, match="clip 1 of the batch holds NaN"):
        windows_of(broken)
    if name not in ("flow", "spin"):  # where an object is hidden its numbers mean nothing
        hidden = broken.tracks.visible.clone()
        hidden[1, 10] = False
        assert bool(windows_of(broken.with_(tracks=broken.tracks.with_(visible=hidden))).values.isfinite().all())


def test_windows_of_a_short_clip_are_refused():
    with pytest.raises(InputError, match="longer clips"):
        windows_of(Measurement(fps=torch.ones(1), masks=torch.ones(1, 4, 1, 8, 8)))
