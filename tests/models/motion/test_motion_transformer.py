"""The motion transformer: layouts, ArtAttention's equations, masks, lengths, frame rates, text, saving and loading."""

from __future__ import annotations

import pytest
import torch

from visviva.errors import InputError
from visviva.models.motion.artattention import ABSENT, ArtAttention, Frames, bodies, expanded
from visviva.models.motion.experts import Experts
from visviva.models.motion.parts import HUMANML3D, JOINTS, UNIFIED, humanml3d_of, unified
from visviva.models.motion.text import WordEncoder, encode, vocabulary, words
from visviva.models.motion.transformer import MotionTransformer


def network(seed=0, open_out=True, **options):
    torch.manual_seed(seed)
    net = MotionTransformer(**{"width": 16, "layers": 2, "text_width": 8, "templates": 8, "hidden": 32, **options}).eval()
    if open_out:  # as after training: nothing zero-initialised stays zero
        with torch.no_grad():
            for p in net.parameters():
                if not bool(p.any()):
                    p.normal_(0, 0.2)
    return net


def inputs(batch=2, frames=12, size=263, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, size, generator=g), torch.tensor([900, 30][:batch])


FPS = torch.tensor([20.0, 30.0])


class TestLayouts:
    @pytest.mark.parametrize("layout", [HUMANML3D, UNIFIED], ids=lambda x: x.name)
    def test_every_column_belongs_to_one_part(self, layout):
        columns = [c for part in layout.columns for c in part]
        assert sorted(columns) == list(range(layout.size))

    def test_sizes_are_the_cards(self):
        assert [len(c) for c in UNIFIED.columns] == [7, 24, 36, 48, 48, 48, 48, 180, 180, 50]
        assert HUMANML3D.present == tuple(range(7))
        assert [len(c) for c in HUMANML3D.columns[:7]] == [7, 24, 36, 48, 48, 50, 50]

    def test_arms_and_legs_are_on_their_side(self):
        from visviva.data.motions.humanml3d import NAMES

        for part, joints in JOINTS.items():
            for j in (j for j in joints if j < 22):
                side = part.split("_")[0]
                assert side in ("head", "trunk") or NAMES[j].startswith(side), (part, NAMES[j])

    def test_there_and_back(self):
        from visviva.data.motions.humanml3d import features

        t = torch.arange(30) / 20
        joints = torch.randn(1, 22, 3, generator=torch.Generator().manual_seed(0)) + torch.sin(3 * t)[:, None, None] * 0.3
        own = features(joints)
        wide, there = unified(own)
        assert wide.shape == (29, 669)
        assert there.tolist() == [True] * 7 + [False] * 3
        assert torch.equal(humanml3d_of(wide), own)  # contacts too: they follow from the velocities
        with pytest.raises(InputError, match="263"):
            humanml3d_of(own)


class TestTemplates:
    def test_one_template_is_a_cubic(self):
        c = torch.randn(1, 1, 4, 1, 5, dtype=torch.float64)
        t = torch.linspace(0, 2, 9, dtype=torch.float64)[None]
        dt = (t[0] - 0.7)[:, None]
        found = expanded(c, torch.full((1, 1, 1), 0.7, dtype=torch.float64), torch.ones(1, dtype=torch.float64), t)[0, :, 0]
        s, v, a, j = c[0, 0, :, 0]
        assert torch.allclose(found, s + v * dt + a * dt**2 + j * dt**3, atol=1e-12)

    def test_shared_times_of_two_frame_rates_agree(self):
        g = torch.Generator().manual_seed(0)
        d, tau = torch.randn(1, 3, 4, 6, 5, generator=g), 2 * torch.rand(1, 3, 6, generator=g)
        slow, fast = (
            expanded(d, tau, torch.full((3,), 0.4), torch.arange(n)[None] / fps) for n, fps in ((30, 15.0), (60, 30.0))
        )
        assert torch.allclose(slow, fast[:, ::2], atol=1e-6)

    def test_the_direct_form_equals_collected_powers(self):
        g = torch.Generator().manual_seed(0)
        d, tau = torch.randn(1, 1, 4, 6, 2, generator=g).double(), 3 * torch.rand(1, 1, 6, generator=g).double()
        t = torch.linspace(0, 10, 50, dtype=torch.float64)[None]
        w = (-(t[0][:, None] - tau[0, 0]).square()).softmax(-1)
        s, v, a, j = d[0, 0]
        m = tau[0, 0][:, None]
        powers = [s - v * m + a * m**2 - j * m**3, v - 2 * a * m + 3 * j * m**2, a - 3 * j * m, j]
        collected = sum((w @ p) * t[0][:, None] ** k for k, p in enumerate(powers))
        direct = expanded(d.float(), tau.float(), torch.ones(1), t.float())[0, :, 0]
        assert torch.allclose(direct.double(), collected, rtol=1e-4, atol=1e-4 * float(collected.abs().max()))

    def test_templates_gather_alike_at_two_frame_rates(self):
        """A frame counts by the time that it lasts, so more of them do not outvote the text."""
        torch.manual_seed(0)
        layer, text = ArtAttention(16, 8, gather=0.12), torch.randn(1, 5, 16)
        further = [(text, torch.ones(1, 5, dtype=torch.bool))] * 3
        found = []
        for rate in (15.0, 30.0):
            times = torch.arange(int(2 * rate)) / rate
            frames = Frames(
                torch.ones(1, len(times), dtype=torch.bool),
                torch.ones(1, 10),
                times[None],
                torch.tensor([2.0]),
                torch.randn(1, 8),
            )
            x = torch.sin(2 * times[None, :, None, None] + torch.arange(16.0)).expand(1, -1, 10, 16)
            found.append(layer.gathered(x + layer.near(frames, range(10)), x, frames.there, further))
        assert (found[0] - found[1]).abs().max() < 0.05 * found[0].abs().max()

    def test_what_is_far_in_time_is_not_gathered(self):
        torch.manual_seed(0)
        layer, times = ArtAttention(16, 8, gather=0.12, templates=4), torch.arange(40) / 20
        there = torch.ones(1, 40, dtype=torch.bool)
        frames = Frames(there, torch.ones(1, 10), times[None], torch.tensor([2.0]), torch.randn(1, 8))
        x, further = torch.randn(1, 40, 10, 16), [(torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool))] * 3
        key = layer.near(frames, range(10)).expand(1, 40, 10, 4)
        before = layer.gathered(key, x, there, further)
        after = layer.gathered(key, torch.where(times[None, :, None, None] > 1.0, 1e3, x), there, further)
        assert torch.equal(before[:, :, 0], after[:, :, 0]), "the first template's place is at 1/4 s"
        assert not torch.allclose(before[:, :, 3], after[:, :, 3])

    def test_frames_and_conditions_that_are_absent_do_not_enter_the_templates(self):
        torch.manual_seed(0)
        layer = ArtAttention(8, 16, parts=3, groups=1)
        key, value, tokens = torch.randn(1, 6, 3, 8), torch.randn(1, 6, 3, 8), torch.randn(1, 4, 8)
        there, known = torch.tensor([[True] * 4 + [False] * 2]), torch.tensor([[True, True, False, False]])
        one = layer.gathered(key, value, there, [(tokens, known)])
        key[:, 4:], value[:, 4:], tokens[:, 2:] = 1e4, -1e4, 1e4
        assert torch.equal(one, layer.gathered(key, value, there, [(tokens, known)]))

    def test_body_attention_leaves_absent_parts_out(self):
        q, k, v = torch.randn(3, 1, 2, 4, 5)
        there = torch.tensor([[True, True, True, False]])
        found = bodies(q, k, v, there)
        assert torch.allclose(found[:, :, :3], bodies(q[:, :, :3], k[:, :, :3], v[:, :, :3], there[:, :3]), atol=1e-6)
        assert ABSENT < -1e5


class TestExperts:
    def test_a_mixture_of_equal_experts_is_one_of_them(self):
        torch.manual_seed(0)
        mixture = Experts(6, 4, 8, count=3, top=2)
        for expert in mixture.experts[1:]:
            expert.load_state_dict(mixture.experts[0].state_dict())
        x = torch.randn(2, 5, 6)
        found, balance = mixture(x)
        assert torch.allclose(found, mixture.experts[0](x), atol=1e-6)
        assert 0.5 < float(balance.detach()) <= 3.0

    def test_more_experts_than_there_are_is_refused(self):
        with pytest.raises(InputError, match="1 to 2"):
            Experts(4, 4, 4, count=2, top=3)


@pytest.mark.parametrize("attention", ["art", "plain"])
class TestNetwork:
    def test_the_first_read_out_is_zero(self, attention):
        x, t = inputs()
        assert not network(attention=attention, open_out=False)(x, t, fps=FPS).sample.any()

    def test_frames_beyond_the_end_change_nothing(self, attention):
        net, (x, t) = network(attention=attention), inputs()
        lengths = torch.tensor([12, 7])
        one = net(x, t, fps=FPS, lengths=lengths).sample
        x[1, 7:] = 1e3
        two = net(x, t, fps=FPS, lengths=lengths).sample
        assert torch.equal(one, two)
        assert not two[1, 7:].any()
        assert torch.allclose(two[1:, :7], net(x[1:, :7], t[1:], fps=FPS[1:]).sample, atol=2e-5)  # as if it were alone

    def test_absent_parts_change_nothing(self, attention):
        net, (x, t) = network(attention=attention, layouts=("humanml3d", "unified")), inputs(size=669)
        there = torch.ones(2, 10, dtype=torch.bool)
        there[:, 7:], there[1, 3] = False, False
        one = net(x, t, fps=FPS, dataset="unified", parts=there).sample
        x[..., list(UNIFIED.columns[9])] = 1e3
        x[1, :, list(UNIFIED.columns[3])] = -1e3
        two = net(x, t, fps=FPS, dataset="unified", parts=there).sample
        assert torch.equal(one, two)
        assert not two[..., list(UNIFIED.columns[8])].any()

    def test_the_content_of_a_hidden_token_does_not_matter(self, attention):
        net, (x, t) = network(attention=attention), inputs()
        hidden = torch.zeros(2, 12, 10, dtype=torch.bool)
        hidden[:, 3, 5] = True
        one = net(x, t, fps=FPS, masked=hidden).sample
        x[:, 3, list(HUMANML3D.columns[5])] = 50.0
        assert torch.equal(one, net(x, t, fps=FPS, masked=hidden).sample)
        assert not torch.equal(one, net(x, t, fps=FPS).sample)

    def test_padded_text_changes_nothing_and_text_does(self, attention):
        net, (x, t) = network(attention=attention), inputs()
        text, there = torch.randn(2, 5, 8), torch.tensor([[True] * 3 + [False] * 2, [False] * 5])
        one = net(x, t, text, there, fps=FPS).sample
        text[0, 3:] = text[1] = 1e3
        two = net(x, t, text, there, fps=FPS).sample
        assert torch.equal(one, two)
        none = net(x, t, fps=FPS).sample
        assert torch.allclose(two[1], none[1], atol=1e-5)
        assert not torch.allclose(two[0], none[0], atol=1e-3)

    def test_saved_and_read_back(self, attention, tmp_path):
        net, (x, t) = network(attention=attention), inputs()
        net.set_statistics(torch.full((263,), 0.5), torch.full((263,), 2.0))
        net.save_pretrained(tmp_path)
        assert {p.name for p in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
        again = MotionTransformer.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
        assert torch.equal(net(x, t, fps=FPS).sample, again(x, t, fps=FPS).sample)
        assert torch.equal(again.normalised(torch.full((1, 263), 2.5)), torch.ones(1, 263))


def test_taps_in_seconds_do_not_depend_on_the_frame_rate_and_see_nothing_beyond_the_end():
    from visviva.models.motion.transformer import tapped

    def frames(count, fps, end):
        t = torch.arange(count)[None] / fps
        none = torch.zeros(1)
        return Frames(torch.arange(count)[None] < end, torch.ones(1, 1) > 0, t, none, none)

    slow, fast = (
        tapped(torch.sin(4 * torch.arange(n) / fps).view(1, n, 1, 1), frames(n, fps, n)) for n, fps in ((40, 20.0), (80, 40.0))
    )
    assert torch.allclose(slow[:, 5:-5], fast[:, ::2][:, 5:-5], atol=0.02)
    x = torch.randn(1, 20, 1, 3)
    one = tapped(x, frames(20, 20.0, 12))
    x[:, 12:] = 1e4
    assert torch.equal(one[:, :12], tapped(x, frames(20, 20.0, 12))[:, :12])


def test_every_weight_gets_a_gradient():
    net, (x, t) = network(experts=3, top=1).train(), inputs()
    hidden = torch.rand(2, 12, 10, generator=torch.Generator().manual_seed(0)) < 0.3
    text = torch.randn(2, 5, 8)
    whole = torch.tensor([[True] * 5, [False] * 5])
    found = net(x, t, text, whole, fps=FPS, masked=hidden, any_dataset=torch.tensor([True, False]))
    (found.sample.square().sum() + found.balance + found.spread).backward()
    lacking = [n for n, p in net.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert not lacking
    still = {n for n, p in net.named_parameters() if not bool(p.grad.any())}
    assert still <= {n for n in still if "experts.experts" in n}  # an expert that no token of this batch chose


def test_what_is_asked_wrongly_is_said():
    net, (x, t) = network(), inputs()
    with pytest.raises(InputError, match="knows no data set 'kit'"):
        net(x, t, fps=FPS, dataset="kit")
    with pytest.raises(InputError, match="263"):
        net(x[..., :10], t, fps=FPS)
    with pytest.raises(InputError, match="art, plain"):
        MotionTransformer(attention="flash")
    with pytest.raises(InputError, match="layout"):
        MotionTransformer(layouts=("kit",))
    with pytest.raises(InputError, match="positive"):
        net.set_statistics(torch.zeros(263), torch.zeros(263))


class TestWords:
    def test_words_numbers_and_marks(self):
        assert words("A person jumps 25 cm.") == ["a", "person", "jumps", "2", "5", "cm", "."]
        assert vocabulary(["b a", "a c"]) == ["a", "b", "c"]

    def test_endings_are_forgiven_and_other_words_named(self):
        encoder = WordEncoder(["a", "jump", "person", "walks"], width=8)
        assert encoder.place("jumping") == encoder.place("jump")
        assert encoder.place("walk") == encoder.place("walks")
        assert encoder.unknown(["a person jumps", "a yak walks"]) == ["yak"]

    def test_padding_changes_nothing_and_an_empty_text_has_no_token(self):
        torch.manual_seed(0)
        encoder = WordEncoder(["a", "jump", "person"], width=8).eval()
        alone, there = encoder(["a person"])
        padded, known = encoder(["a person", "a person jump", ""])
        assert torch.allclose(alone[0], padded[0, :2], atol=1e-6)
        assert known.sum(1).tolist() == [2, 3, 0]
        assert there.all()
        assert padded.isfinite().all()

    def test_saved_and_read_back(self, tmp_path):
        encoder = WordEncoder(["a", "jump"], width=8).eval()
        encoder.save_pretrained(tmp_path)
        again = WordEncoder.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
        assert torch.equal(encoder(["a jump"])[0], again(["a jump"])[0])

    def test_a_clip_encoder_gives_tokens_too(self):
        from transformers import CLIPTextConfig, CLIPTextModel

        from visviva.models.backbones.tiny import tokenizer

        torch.manual_seed(0)
        read = tokenizer(16)
        clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(read), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
            )
        ).eval()
        tokens, there = encode(clip, read, ["a ball falls", ""])
        assert tokens.shape[-1] == 8
        assert there[0].sum() >= 3
        assert not there[1].any()


def test_frames_are_what_a_layer_knows():
    frames = Frames(torch.ones(1, 2), torch.ones(1, 7), torch.zeros(1, 2), torch.ones(1), torch.zeros(1, 4))
    with pytest.raises(AttributeError):
        frames.times = torch.ones(1, 2)
