"""Identities: the memory's rule against hand-computed numbers, and what survives occlusion, crossing and re-entry."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.errors import InputError
from visviva.models.probes.objects import Identity, bi_softmax, look, pooled
from visviva.models.probes.objects.identity import _State
from visviva.optim.teacher import TeacherEMA
from visviva.physics.sprites import random_sprites


def unit(*angles):
    """Unit vectors in the plane, (len, 2)."""
    a = torch.tensor(angles)
    return torch.stack([a.cos(), a.sin()], dim=-1)


def memory_after(rule, looks):
    """The memory of the only identity after a sequence of its embeddings (T, D)."""
    state = _State.empty(looks[None, :, None], rule.slots, rule.bank)
    for t, e in enumerate(looks):
        rule._remember(state, torch.zeros(1, 1, dtype=torch.long), e[None, None], None, t)
    return state.memory[0, 0]


def test_guided_memory_follows_the_published_rule_by_hand():
    e = unit(0.0, 1.0, 2.2)
    m = e[0]
    beta = 0.5 * torch.cos(torch.tensor(1.0))
    m = (1 - beta) * m + beta * e[1]
    beta = 0.5 * max(0.0, float((torch.cos(torch.tensor(2.2)) + torch.cos(torch.tensor(1.2))) / 2))  # below 0: no weight at all
    assert beta == 0
    assert torch.allclose(memory_after(Identity(scale=0.5), e), m, atol=1e-6)


def test_the_memory_keeps_only_its_last_raw_embeddings():
    e = unit(0.0, 0.1, 0.2, 1.5)
    rule = Identity(scale=1.0, bank=2)
    m = e[0]
    for t, old in ((1, e[:1]), (2, e[:2]), (3, e[1:3])):
        m = torch.lerp(m, e[t], (old @ e[t]).mean())
    assert torch.allclose(memory_after(rule, e), m, atol=1e-6)


def test_a_fixed_weight_is_the_shared_moving_average():
    e = torch.nn.functional.normalize(torch.randn(6, 5), dim=-1)
    teacher = TeacherEMA({"look": e[0]}, decay=0.7)
    for step in e[1:]:
        teacher.update({"look": step})
    assert torch.allclose(memory_after(Identity(memory=0.3), e), teacher.shadow["look"], atol=1e-6)
    assert torch.equal(memory_after(Identity(memory="last"), e), e[-1])


def test_bi_softmax_sums_to_half_of_rows_and_columns_and_ignores_what_is_not_allowed():
    likeness, allowed = torch.randn(3, 4, 6), torch.ones(3, 4, 6, dtype=torch.bool)
    assert torch.allclose(bi_softmax(likeness, allowed).sum((1, 2)), torch.full((3,), 5.0), atol=1e-5)
    allowed[:, 2] = False
    allowed[:, :, 5] = False
    some = bi_softmax(likeness, allowed)
    assert float(some[:, 2].abs().max()) == float(some[:, :, 5].abs().max()) == 0
    assert torch.allclose(some.sum((1, 2)), torch.full((3,), (3 + 5) / 2), atol=1e-5)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_identities_do_not_depend_on_the_order_of_the_detections(seed):
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.nn.functional.normalize(torch.randn(3, 8, generator=generator), dim=-1)
    looks = torch.nn.functional.normalize(kinds + 0.1 * torch.randn(2, 7, 3, 8, generator=generator), dim=-1)
    present = torch.rand(2, 7, 3, generator=generator) < 0.8
    present[:, 0] = True
    ids = Identity()(looks, present)
    shuffle = torch.rand(2, 6, 3, generator=generator).argsort(-1)
    shuffle = torch.cat([torch.arange(3).expand(2, 1, 3), shuffle], dim=1)
    moved = Identity()(looks.gather(2, shuffle[..., None].expand_as(looks)), present.gather(2, shuffle))
    known = (ids >= 0) & (ids < 3)  # births later on are numbered in the order of the detections
    back = torch.empty_like(moved).scatter_(2, shuffle, moved)
    assert torch.equal(ids[known], back[known])


@pytest.mark.parametrize(("gap", "kept"), [(20, True), (21, False)])
def test_an_object_comes_back_as_itself_until_patience_ends(gap, kept):
    looks = unit(0.3).expand(1, gap + 2, 1, 2).clone()
    present = torch.zeros(1, gap + 2, 1, dtype=torch.bool)
    present[:, 0] = True
    present[:, gap] = True
    ids = Identity(patience=20)(looks, present)[0, :, 0]
    assert ids[0] == 0
    assert ids[gap] == (0 if kept else 1)
    assert (ids[1:gap] == -1).all()


def test_a_stranger_is_born_and_a_full_bank_says_so():
    looks = torch.eye(4)[None, :, None]
    present = torch.ones(1, 4, 1, dtype=torch.bool)
    assert Identity()(looks, present).flatten().tolist() == [0, 1, 2, 3]
    assert Identity(slots=2)(looks, present).flatten().tolist() == [0, 1, -1, -1]


def test_place_tells_twins_apart_where_looks_cannot():
    looks = torch.ones(1, 9, 2, 3)
    t = torch.arange(9.0)
    one, two = torch.stack([4 * t, 0 * t], -1), torch.stack([32 - 4 * t, 0 * t + 6], -1)
    places = torch.stack([one, two], dim=1)[None]
    places[:, 1::2] = places[:, 1::2].flip(2)
    ids = Identity(reach=4.0)(looks, torch.ones(1, 9, 2, dtype=torch.bool), places)
    assert ids[0, ::2].tolist() == [[0, 1]] * 5
    assert ids[0, 1::2].tolist() == [[1, 0]] * 4


def test_wrong_settings_are_refused():
    with pytest.raises(InputError, match="'momentum' is not known"):
        Identity(memory="momentum")
    with pytest.raises(InputError, match="none are given"):
        Identity(reach=3.0)(torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, dtype=torch.bool))


def test_looks_tell_objects_apart_and_do_not_change_as_they_move():
    scene = random_sprites(4, seed=3, objects=2)
    drawn = scene.render()
    looks = look(drawn.frames, drawn.masks)
    assert looks.shape[:3] == drawn.masks.shape[:3]
    assert torch.allclose(looks.norm(dim=-1), torch.ones(4, 17, 2), atol=1e-5)
    own = (looks[:, :1] * looks[:, 1:]).sum(-1)
    other = (looks[:, :1] * looks[:, 1:].flip(2)).sum(-1)
    assert float(own.min()) > 0.9
    assert float((own - other).min()) > 0.05
    assert float(look(drawn.frames, torch.zeros_like(drawn.masks)).abs().max()) == 0


def test_features_are_pooled_inside_the_mask():
    features = torch.zeros(1, 2, 2, 4, 4)
    features[:, :, 0, :, :2] = 3.0
    features[:, :, 1, :, 2:] = 5.0
    masks = torch.zeros(1, 2, 2, 8, 8)
    masks[:, :, 0, :, :4] = 1
    masks[:, :, 1, :, 4:] = 1
    assert torch.allclose(pooled(features, masks), torch.eye(2).expand(1, 2, 2, 2))


@pytest.mark.slow
def test_memory_makes_at_least_a_third_fewer_wrong_identities_than_the_last_embedding():
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    from objects import identity

    found = identity(40, seed=7)
    better = found["guided memory"]["fewer wrong than last embedding (paired)"]
    assert better["share"] > 0.3
    assert better["interval"][0] > 0.1
