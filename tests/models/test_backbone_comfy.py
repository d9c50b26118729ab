"""Adapters under ComfyUI's names: every module counted, and the same weights by diffusers' own converters back."""

import re

import diffusers
import pytest
import torch
from diffusers.loaders import single_file_utils
from safetensors.torch import load_file, save_file
from test_backbone_contract import conditions, noise_of
from tiny_backbones import VARIANTS, build

from visviva.configs.export import ExportRecipe
from visviva.errors import InputError
from visviva.models.backbones.comfy import LAYERS, renamed, write
from visviva.pipelines import export

RANK = 2


def family_of(name):
    return next(family for family in LAYERS if name.startswith(family))


def trained(variant, folder, alpha=RANK, targets=None):
    """A tiny backbone with random adapters, saved to ``folder``; and how many modules of each network have one."""
    torch.manual_seed(0)
    backbone = build(variant)
    backbone.add_lora(rank=RANK, alpha=alpha, targets=targets)
    for _, parameter in backbone.trainable():
        torch.nn.init.normal_(parameter, std=0.3)
    assert backbone.save_lora(folder) == len(list(backbone.trainable()))
    return backbone, len(list(backbone.trainable())) // 2 // len(backbone.networks())


def products(adapters, scale):
    """The change of each weight that adapters of diffusers make."""
    modules = {key.removesuffix(".lora_A.weight") for key in adapters if ".lora_A." in key}
    return {
        m.removeprefix("transformer."): scale * adapters[f"{m}.lora_B.weight"] @ adapters[f"{m}.lora_A.weight"] for m in modules
    }


def changes(comfy):
    """The change of each of its weights that ComfyUI makes of a file: alpha / rank * B A."""
    layers = {key.removesuffix(".alpha") for key in comfy if key.endswith(".alpha")}
    assert len(comfy) == 3 * len(layers)
    down, up = ({layer: comfy[f"{layer}.lora_{side}.weight"] for layer in layers} for side in "AB")
    return {
        layer.removeprefix("diffusion_model."): comfy[f"{layer}.alpha"] / len(down[layer]) * up[layer] @ down[layer]
        for layer in layers
    }


def without_alphas(comfy):
    """A file for converters that take alpha = rank for granted; only where that is so."""
    assert all(comfy[key] == len(comfy[key.replace(".alpha", ".lora_A.weight")]) for key in comfy if key.endswith(".alpha"))
    return {key: tensor for key, tensor in comfy.items() if not key.endswith(".alpha")}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_adapted_module_finds_its_place(variant, tmp_path):
    backbone, modules = trained(variant, tmp_path / "lora")
    written = write(tmp_path / "lora", tmp_path / "new" / "a.safetensors", family_of(variant))
    names = ["a"] if backbone.transformer_2 is None else ["a-high-noise", "a-low-noise"]
    assert [w.file for w in written] == [tmp_path / "new" / f"{name}.safetensors" for name in names]
    for (file, count, layers), folder in zip(written, ("lora", "lora/transformer_2"), strict=False):
        ours, theirs = load_file(tmp_path / folder / "pytorch_lora_weights.safetensors"), load_file(file)
        assert count == modules == len(ours) // 2
        assert len(theirs) == 3 * layers
        assert sum(t.numel() for k, t in theirs.items() if ".lora_A." in k) == sum(
            t.numel() for k, t in ours.items() if ".lora_A." in k
        )
        assert all(key.startswith("diffusion_model.") for key in theirs)


@pytest.mark.parametrize("variant", ["wan2.1-t2v", "wan2.1-i2v", "wan2.2-t2v", "ltx-video"])
def test_plain_diffusers_turns_the_file_back_into_the_same_model(variant, tmp_path):
    wan = variant.startswith("wan")
    targets = r"blocks\.\d+\.(attn1|attn2)\.(to_q|add_k_proj|add_v_proj)|blocks\.\d+\.ffn\.net\.2" if "i2v" in variant else None
    backbone, modules = trained(variant, tmp_path / "lora", alpha=3 if wan else RANK, targets=targets)
    files = write(tmp_path / "lora", tmp_path / "a.safetensors", family_of(variant))
    assert all((w.modules, w.layers) == (modules, modules) for w in files)
    plain = build(variant)
    condition, noise = conditions(plain), noise_of(plain)
    base = {s: plain.velocity(noise, torch.tensor([s]), condition) for s in (0.3, 0.95)}
    for written, name in zip(files, backbone.networks(), strict=True):
        given = load_file(written.file)
        given = given if wan else without_alphas(given)
        plain.pipeline.load_lora_weights(given, **({"load_into_transformer_2": True} if name == "transformer_2" else {}))
    for sigma, untrained in base.items():  # in each expert's half
        theirs, ours = (b.velocity(noise, torch.tensor([sigma]), condition).detach() for b in (plain, backbone))
        assert (ours - untrained).abs().max() > 1e-3
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-4)


def test_wan_weights_come_back_bit_by_bit(tmp_path):
    trained("wan2.1-t2v", tmp_path / "lora")
    [written] = write(tmp_path / "lora", tmp_path / "a.safetensors", "wan")
    ours = load_file(tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    back = diffusers.WanPipeline.lora_state_dict(load_file(written.file))
    assert back.keys() == ours.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in ours.items())
    keys = load_file(written.file).keys()
    assert {"diffusion_model.blocks.1.self_attn.q.lora_A.weight", "diffusion_model.blocks.0.ffn.2.alpha"} <= keys


def test_hunyuan_layers_that_are_one_in_comfyui_are_taken_apart_again_by_diffusers():
    """At the width of the real model, which diffusers' converter assumes."""
    torch.manual_seed(0)
    ours, width = {}, {"proj_mlp": (3072, 12288), "proj_out": (15360, 3072), "ff.net.2": (12288, 3072), "proj": (3072, 12288)}
    for name in LAYERS["hunyuan-video"]:
        part = name.split("#.")[1].removeprefix("ff_context.").removeprefix("ff.")
        fan_in, fan_out = width.get(part, width["ff.net.2" if part == "net.2" else "proj"] if "net" in part else (3072, 3072))
        key = f"transformer.{name.replace('#', '0')}"
        ours |= {f"{key}.lora_A.weight": torch.randn(1, fan_in), f"{key}.lora_B.weight": torch.randn(fan_out, 1)}
    comfy, modules = renamed(ours, 1.0, "hunyuan-video")
    assert modules == 17 == len(ours) // 2
    assert len(comfy) == 3 * 10
    back = diffusers.HunyuanVideoPipeline.lora_state_dict(without_alphas(comfy))
    assert back.keys() == ours.keys()
    want = {key: tensor[:, :50] if ".lora_A." in key else tensor for key, tensor in ours.items()}
    got = {key: tensor[:, :50] if ".lora_A." in key else tensor for key, tensor in back.items()}
    for name, change in products(want, 1.0).items():
        torch.testing.assert_close(products({k: t for k, t in got.items() if f".{name}." in k}, 1.0)[name], change)


class Checkpoint(dict):
    """Changes of weights as a whole checkpoint: what is not changed is zero, as diffusers' converter takes all or nothing."""

    def pop(self, key, *default):
        return super().pop(key, torch.zeros(6, 1))


def test_mochi_changes_are_those_that_diffusers_converts_from_the_first_release(tmp_path):
    trained("mochi", tmp_path / "lora", alpha=3)
    [written] = write(tmp_path / "lora", tmp_path / "a.safetensors", "mochi")
    checkpoint = Checkpoint({f"{layer}.weight": change for layer, change in changes(load_file(written.file)).items()})
    back = single_file_utils.convert_mochi_transformer_checkpoint_to_diffusers(checkpoint)
    assert not checkpoint  # every layer is one of the first release
    ours = products(load_file(tmp_path / "lora" / "pytorch_lora_weights.safetensors"), 3 / RANK)
    for name, change in ours.items():
        torch.testing.assert_close(back.pop(f"{name}.weight"), change)
    assert not any(tensor.any() for tensor in back.values())


def test_cogvideox_changes_are_the_same_under_comfyuis_names(tmp_path):
    """Names as in ComfyUI's CogVideoXTransformer3DModel; diffusers has no converter to hold them against."""
    trained("cogvideox-t2v", tmp_path / "lora", alpha=3)
    [written] = write(tmp_path / "lora", tmp_path / "a.safetensors", "cogvideox")
    there, ours = changes(load_file(written.file)), load_file(tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    assert {re.sub(r"\d", "#", name) for name in there} == {
        f"blocks.#.{layer}" for layer in ("q", "k", "v", "attn_out", "ff_proj", "ff_out")
    }
    pairs = {"attn1.to_q": "q", "attn1.to_k": "k", "attn1.to_v": "v", "attn1.to_out.0": "attn_out", "ff.net.2": "ff_out"}
    for name, change in products(ours, 3 / RANK).items():
        block, layer = re.fullmatch(r"transformer_blocks\.(\d)\.(.+)", name).groups()
        torch.testing.assert_close(there[f"blocks.{block}.{pairs.get(layer, 'ff_proj')}"], change)


def pair(module, suffix=""):
    return {f"{module}.lora_A.weight{suffix}": torch.ones(1, 4), f"{module}.lora_B.weight": torch.ones(4, 1)}


@pytest.mark.parametrize(
    ("adapters", "family", "words"),
    [
        (pair("transformer.blocks.0.attn1.to_q"), "wann", "family 'wann'.*did you mean 'wan'"),
        (pair("transformer.blocks.0.attn1.to_q"), "ltx-video", "no place for 'transformer.blocks.0.attn1.to_q'"),
        (pair("transformer.condition_embedder.time_proj"), "wan", "no place for"),
        (pair("text_encoder.blocks.0.attn1.to_q"), "wan", "no place for"),
        (pair("transformer.blocks.0.attn1.to_q", ".x"), "wan", "no place for"),
        ({"transformer.blocks.0.attn1.to_q.lora_B.bias": torch.ones(4)}, "wan", "no place for .*bias"),
        (pair("transformer.transformer_blocks.0.attn1.to_q"), "mochi", "to_k, .*to_v has no adapter; train all"),
    ],
)
def test_what_has_no_place_is_refused_not_dropped(adapters, family, words):
    good = pair("transformer.blocks.3.attn1.to_k") if family == "wan" else {}
    with pytest.raises(InputError, match=words):
        renamed({**good, **adapters}, 1.0, family)


def test_files_that_cannot_be_read_or_written_are_refused(tmp_path):
    _, modules = trained("wan2.1-t2v", tmp_path / "lora")
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    for name in ("there.safetensors", "a.bin"):
        with pytest.raises(InputError, match="give the path of a new"):
            write(tmp_path / "lora", tmp_path / name, "wan")
    assert (tmp_path / "there.safetensors").read_bytes() == b"mine"
    with pytest.raises(InputError, match="no adapters of diffusers"):
        write(tmp_path / "there.safetensors", tmp_path / "a.safetensors", "wan")
    save_file(
        pair("transformer.blocks.0.attn1.to_q"),
        tmp_path / "rs.safetensors",
        metadata={"lora_adapter_metadata": '{"transformer.r": 1, "transformer.lora_alpha": 1, "transformer.use_rslora": true}'},
    )
    with pytest.raises(InputError, match="use_rslora"):
        write(tmp_path / "rs.safetensors", tmp_path / "a.safetensors", "wan")
    assert not (tmp_path / "a.safetensors").exists()
    assert modules == 20


def test_the_verb_counts_and_says_what_stays_behind(tmp_path, capsys):
    _, modules = trained("mochi", tmp_path / "lora")
    save_file({"gamma": torch.ones(1)}, tmp_path / "lora" / "momentum_attention.safetensors")
    output = str(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="--family"):
        export.run(ExportRecipe(adapters=str(tmp_path / "lora"), output=output))
    export.run(ExportRecipe(adapters=str(tmp_path / "lora"), family="mochi", output=output))
    counted, behind = capsys.readouterr().out.splitlines()
    assert counted == f"{output}: {modules} adapted modules in 13 layers of ComfyUI's mochi model"
    assert behind.startswith("not written: ")
    assert "momentum_attention.safetensors" in behind
