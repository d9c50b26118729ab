"""A tiny model of the real Wan 2.2 TI2V classes, built from scratch without any download: the embedded default's architecture.

`WanTransformer3DModel` with per-token timesteps, a residual patchifying `AutoencoderKLWan`, `UMT5EncoderModel` and a word and
digit tokenizer, in a plain diffusers `WanImageToVideoPipeline`.
"""

from __future__ import annotations

from typing import Any

import torch

from visviva.errors import InputError
from visviva.models.backbones.wan import WanBackbone

WORDS = (
    "a",
    "an",
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "ball",
    "box",
    "block",
    "cube",
    "sphere",
    "capsule",
    "cylinder",
    "ellipsoid",
    "object",
    "objects",
    "free",
    "fall",
    "falls",
    "falling",
    "horizontal",
    "parabolic",
    "throw",
    "thrown",
    "ramp",
    "slides",
    "slide",
    "sliding",
    "down",
    "up",
    "height",
    "speed",
    "angle",
    "degrees",
    "left",
    "right",
    "rising",
    "friction",
    "view",
    "m",
    "s",
    "/",
    ",",
    ".",
    "-",
    "at",
    "from",
    "with",
    "by",
    "static",
    "still",
    "camera",
    "wall",
    "floor",
    "no",
    "force",
    "point",
    "wind",
    "direction",
    "acceleration",
    "mass",
    "kg",
    "per",
    "second",
    "red",
    "green",
    "blue",
)
SPECIAL = ["<pad>", "</s>", "<unk>"]
SIZES: dict[str, dict[str, Any]] = {
    "default": dict(heads=8, head_dim=32, layers=6, ffn=768, text=128, text_layers=2, base=64, z=48, patch=4, tokens=40),
    "test": dict(heads=2, head_dim=12, layers=2, ffn=32, text=32, text_layers=1, base=4, z=8, patch=4, tokens=32),
}


def tokenizer(length: int) -> Any:
    """Return a tokenizer of whole words, single digits and punctuation: 1.35 becomes ``1 . 3 5``; others are ``<unk>``."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = dict.fromkeys([*SPECIAL, *"0123456789", *WORDS])
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d|[a-z]+|[^\sa-z\d]"), "isolated"), pre_tokenizers.WhitespaceSplit()]
    )
    core.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", SPECIAL.index("</s>"))])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=length
    )


def tiny_wan(size: str = "default", *, seed: int = 0) -> WanBackbone:
    """Return the tiny Wan with random weights; ``"test"`` is minimal (milliseconds a step), ``"default"`` the shipped one.

    Compression: 8 in space, 2 in time; clips of 2k + 1 frames whose sides are multiples of 16 pixels.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline

    if size not in SIZES:
        raise InputError(f"size = {size!r}; allowed: {', '.join(SIZES)}")
    s = SIZES[size]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = tokenizer(s["tokens"])
        pipeline = WanImageToVideoPipeline(
            tokenizer=words,
            text_encoder=_text_encoder(len(words), s),
            transformer=_transformer(s),
            vae=_vae(s),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            expand_timesteps=True,
        )
    return WanBackbone(pipeline)


def _text_encoder(vocabulary: int, s: dict[str, Any]) -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=s["text"],
        d_kv=s["text"] // 4,
        d_ff=2 * s["text"],
        num_layers=s["text_layers"],
        num_heads=4,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=32,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config).eval()


def _transformer(s: dict[str, Any]) -> Any:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=s["heads"],
        attention_head_dim=s["head_dim"],
        in_channels=s["z"],
        out_channels=s["z"],
        text_dim=s["text"],
        freq_dim=128,
        ffn_dim=s["ffn"],
        num_layers=s["layers"],
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=64,
    )


def _vae(s: dict[str, Any]) -> Any:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=s["base"],
        z_dim=s["z"],
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[True],
        is_residual=True,
        patch_size=s["patch"],
        in_channels=3 * s["patch"] ** 2,
        out_channels=3 * s["patch"] ** 2,
        scale_factor_temporal=2,
        scale_factor_spatial=2 * s["patch"],
        latents_mean=[0.0] * s["z"],
        latents_std=[1.0] * s["z"],
    )
