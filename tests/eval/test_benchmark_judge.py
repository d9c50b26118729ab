"""Judges: strict reading of answers, a real vision-language model at a tiny size, functions by name, bad names."""

from __future__ import annotations

import sys
import types

import pytest
import torch

from visviva.errors import InputError
from visviva.eval.benchmarks.judge import TransformersJudge, load, name, rating, uniform, yes

WORDS = [
    "<unk>",
    "<pad>",
    "<s>",
    "</s>",
    "<image>",
    "Yes",
    "No",
    "Does",
    "the",
    "ball",
    "fall",
    "Answer",
    "yes",
    "or",
    "no",
    "1",
]
TEMPLATE = (
    "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}"
    "{% endif %}{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A random LLaVA of 2 layers with its processor, saved as any LLaVA is."""
    import transformers as hf
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=words, additional_special_tokens=["<image>"], **special)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    vision = hf.CLIPVisionConfig(num_hidden_layers=2, image_size=28, patch_size=14, **small)
    ends = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
    text = hf.LlamaConfig(vocab_size=len(WORDS), num_hidden_layers=1, num_key_value_heads=2, **small, **ends)
    torch.manual_seed(0)
    config = hf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, vision_feature_layer=-1)
    images = hf.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    options = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = hf.LlavaProcessor(image_processor=images, tokenizer=tokenizer, chat_template=TEMPLATE, **options)
    folder = tmp_path_factory.mktemp("llava")
    hf.LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_a_vision_language_model_answers_and_sees_its_frames(llava):
    judge = load(str(llava))
    assert isinstance(judge, TransformersJudge)
    frames = torch.rand(3, 3, 40, 50)
    question = "Does the ball fall"
    assert judge(frames, question) == judge(frames, question)  # greedy
    assert set(judge(frames, question).split()) <= set(WORDS)
    likely = judge.likelihood(frames[:1], "the ball")
    assert 0 < likely < 1
    assert likely != judge.likelihood(1 - frames[:1], "the ball")


def test_a_tokenizer_that_begins_yes_and_no_alike_gives_no_likelihood(llava, monkeypatch):
    judge = load(str(llava))
    vocabulary = judge.processor.tokenizer
    monkeypatch.setattr(judge.processor, "tokenizer", lambda word, **options: vocabulary("<unk> " + word, **options))
    with pytest.raises(InputError, match="begins 'Yes' and 'No' with one token"):
        judge.likelihood(torch.rand(1, 3, 40, 50), "the ball")


def test_a_function_is_a_judge(monkeypatch):
    module = types.ModuleType("my_judge")
    module.ask = lambda frames, question: "Yes"
    monkeypatch.setitem(sys.modules, "my_judge", module)
    assert load("my_judge:ask")(torch.zeros(1, 3, 4, 4), "?") == "Yes"
    assert name(load("my_judge:ask")) == "<lambda>"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [("nowhere", "give the folder"), ("no_such_module:f", "cannot be imported"), ("math:pi", "not callable")],
)
def test_what_is_no_judge_is_refused(wrong, words, tmp_path):
    with pytest.raises(InputError, match=words):
        load(wrong)
    with pytest.raises(InputError, match="no model in"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("answer", "read"),
    [("4", 4), (" 5. It falls", 5), ("3/5", 3), ("someone drops 2", None), ("10", None), ("", None), ("0", None)],
)
def test_ratings_are_read_strictly(answer, read):
    assert rating(answer, range(1, 6)) == read


def test_yes_and_no_are_read_strictly():
    assert [yes(a) for a in ("Yes.", '"no', "yesterday", "The eyes", "NO WAY")] == [True, False, None, None, False]


def test_uniform_frames_reach_both_ends():
    frames = torch.arange(10.0).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    assert uniform(frames, 4)[:, 0, 0, 0].tolist() == [0, 3, 6, 9]
    assert uniform(frames[:2], 3)[:, 0, 0, 0].tolist() == [0, 0, 1]
