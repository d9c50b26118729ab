"""Checkpoints that are not whole: missing, extra and misshapen weights, broken index files; one sentence each."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from visviva.errors import InputError
from visviva.models.backbones.checkpoint import TINY
from visviva.models.backbones.wan import WanBackbone

WEIGHTS = {"transformer": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    return folder


def configure(model: Path, part: str, **changes: object) -> None:
    file = model / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def drop(model: Path, part: str, prefix: str) -> None:
    file = model / part / f"{WEIGHTS[part]}.safetensors"
    save_file({k: v for k, v in load_file(file).items() if not k.startswith(prefix)}, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("transformer", {"num_layers": 7}, r"transformer does not fit.*27 weights are missing \(blocks\.6\..*, \.\.\.\)"),
        ("transformer", {"num_layers": 5}, r"transformer does not fit.*27 weights are unknown to the config \(blocks\.5\."),
        ("transformer", {"ffn_dim": 1536}, r"its transformer could not be loaded.*blocks\.0\.ffn.*expected shape"),
        ("text_encoder", {"num_layers": 3}, r"text_encoder does not fit.*weights are missing \(encoder\.block\.2"),
        (
            "text_encoder",
            {"num_layers": 1},
            r"text_encoder does not fit.*weights are unknown to the config \(encoder\.block\.1",
        ),
        ("text_encoder", {"d_ff": 512}, r"text_encoder does not fit.*6 weights are of another shape \(encoder\.block\.0"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused(model, part, changes, words):
    configure(model, part, **changes)
    with pytest.raises(InputError, match=words) as caught:
        WanBackbone.load(model)
    assert "\n" not in str(caught.value)


def test_a_vae_without_its_decoder_is_refused(model):
    drop(model, "vae", "decoder.")
    with pytest.raises(InputError, match=r"the vae does not fit its config\.json: \d+ weights are missing \(decoder\."):
        WanBackbone.load(model)


def test_damaged_weights_and_configs_are_named(model):
    (model / "transformer/diffusion_pytorch_model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{nothing")
    with pytest.raises(InputError, match="its transformer could not be loaded as WanTransformer3DModel"):
        WanBackbone.load(model)
    (model / "vae/config.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="its vae could not be loaded as AutoencoderKLWan"):
        WanBackbone.load(model)


@pytest.mark.parametrize(
    ("content", "words"), [(b"{", "not readable as JSON"), (b"\xff\xfe", "not readable"), (b"[]", "a list")]
)
def test_an_index_that_is_no_object_is_refused(model, content, words):
    (model / "model_index.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"model_index\.json: .*{words}"):
        WanBackbone.load(model)


def test_a_network_class_that_does_not_exist_is_named(model):
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | {"transformer": ["diffusers", "WanTransformer9D"]}))
    with pytest.raises(InputError, match="its transformer is a WanTransformer9D"):
        WanBackbone.load(model)


def test_dtypes_are_as_asked_and_the_vae_stays_in_float32():
    backbone = WanBackbone.load("tiny", dtype=torch.bfloat16)
    assert backbone.vae.dtype == torch.float32
    assert backbone.text_encoder.dtype == torch.bfloat16
    assert backbone.transformer.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
