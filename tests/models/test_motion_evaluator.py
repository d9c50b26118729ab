"""The motion evaluator: texts and motions of length one, frames that are not there, the contrastive loss, weights in files."""

import json
import math

import pytest
import torch
from torch import nn

from visviva.errors import InputError
from visviva.models.motion.evaluator import FEATURES, MotionEvaluator, contrast, pieces


def small(**given):
    torch.manual_seed(0)
    return MotionEvaluator(dim=8, width=12, **given).eval()


def motions(count=4, frames=40, seed=0):
    return torch.randn(count, frames, FEATURES, generator=torch.Generator().manual_seed(seed))


def test_every_word_has_pieces_and_they_do_not_change():
    assert pieces("A person JUMPS, 2 times!", 512) == pieces("a person jumps 2 times", 512)
    assert len(pieces("walks", 512)[0]) == 6
    shared = set(pieces("jumping", 4096)[0]) & set(pieces("jumped", 4096)[0])
    assert len(shared) == 3  # <ju, jum and ump: what a known stem has in common with a form that is not known


def test_embeddings_have_length_one_and_words_in_another_order_another_place():
    found = small().texts(["kick left then right", "kick right then left", "", "kick left then right"])
    assert torch.allclose(found.norm(dim=-1), torch.ones(4))
    assert torch.allclose(found[0], found[3], atol=1e-6)
    assert (found[0] - found[1]).abs().max() > 1e-4
    assert torch.allclose(small().motions(motions()).norm(dim=-1), torch.ones(4))


def test_frames_that_are_not_there_do_not_matter():
    evaluator, x = small(), motions(frames=33)
    lengths = torch.tensor([33, 32, 21, 8])
    spoilt = x.clone()
    for row, length in enumerate(lengths.tolist()):
        spoilt[row, length:] = float("nan")
    found = evaluator.motions(spoilt, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert torch.allclose(found[row], evaluator.motions(x[row : row + 1, :length])[0], atol=1e-5)


def test_the_loss_of_embeddings_that_tell_nothing_is_the_logarithm_of_the_answers():
    flat = torch.ones(6, 4) / 2
    alike = torch.eye(6, dtype=torch.bool)
    found = contrast(flat, flat, flat[:2], alike, torch.tensor(2.0))
    assert float(found) == pytest.approx((math.log(8) + math.log(6)) / 2, rel=1e-5)


def test_the_loss_of_right_answers_is_small_and_that_of_spoilt_ones_large():
    one = torch.eye(4)
    alike = torch.eye(4, dtype=torch.bool)
    good = contrast(one, one, one[:0], alike, torch.tensor(3.0))
    assert float(good) == pytest.approx(math.log(1 + 3 * math.exp(-math.exp(3.0))), abs=1e-6)
    assert contrast(one, one, one[:1], alike, torch.tensor(3.0)) > good + 0.05


def test_equal_texts_answer_each_other():
    text = torch.eye(4)[[0, 0, 1]]
    alike = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    strict = contrast(text, text, text[:0], torch.eye(3, dtype=torch.bool), torch.tensor(3.0))
    kind = contrast(text, text, text[:0], alike, torch.tensor(3.0))
    assert float(kind) == pytest.approx(2 / 3 * math.log(2), abs=1e-4)
    assert float(strict) == pytest.approx(float(kind), abs=1e-4)  # as large, but without a pull apart:
    text.requires_grad_()
    contrast(text, text.detach(), text[:0], alike, torch.tensor(3.0)).backward()
    assert text.grad.abs().max() < 1e-3


def test_it_is_saved_and_read_again(tmp_path):
    evaluator = small(name="mine")
    evaluator.mean.fill_(0.5)
    evaluator.save(tmp_path / "e.safetensors")
    again = MotionEvaluator.load(tmp_path / "e.safetensors")
    assert again.name == "mine"
    assert torch.equal(again.motions(motions()), evaluator.motions(motions()))
    assert torch.equal(again.texts(["a b"]), evaluator.texts(["a b"]))


def test_another_text_encoder_can_be_plugged_in(tmp_path):
    class Counted(nn.Module):
        def forward(self, texts):
            return torch.tensor([[float(len(t)), 1.0, *[0.0] * 6] for t in texts])

    evaluator = small(text=Counted())
    assert evaluator.texts(["", "abc"])[0].tolist()[:2] == [0.0, 1.0]
    with pytest.raises(InputError, match="another text encoder"):
        evaluator.save(tmp_path / "e.safetensors")


def test_what_is_no_motion_is_refused():
    evaluator, bad = small(), motions()
    bad[1, 3, 5] = float("nan")
    for given, words in (
        ((motions()[..., :251],), "263"),
        ((motions(frames=7),), "lengths"),
        ((motions(), torch.tensor([40, 40, 41, 40])), "lengths"),
        ((bad,), "not finite"),
    ):
        with pytest.raises(InputError, match=words):
            evaluator.motions(*given)
    with pytest.raises(InputError, match="no texts"):
        evaluator.texts([])


def test_what_is_no_evaluator_is_refused(tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "e.safetensors"
    with pytest.raises(InputError, match="no such file"):
        MotionEvaluator.load(file)
    file.write_bytes(b"not weights")
    with pytest.raises(InputError, match="not a safetensors file"):
        MotionEvaluator.load(file)
    for about in ({}, {"evaluator": "{"}, {"evaluator": json.dumps({"dim": 8, "width": 12, "name": "x"})}):
        save_file({"x": torch.zeros(1)}, str(file), metadata=about)
        with pytest.raises(InputError, match="holds no motion evaluator"):
            MotionEvaluator.load(file)
