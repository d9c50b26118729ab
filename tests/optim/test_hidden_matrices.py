"""Which parameters of real video (and image) transformers are hidden matrices: diffusers' own classes at tiny sizes."""

import re
import warnings

import diffusers
import pytest
import torch
from torch import nn

from visviva.optim import NAMO, AdamW, Muon
from visviva.optim.muon import hidden_matrix

ATTENTION = {"to_q", "to_k", "to_v", "to_out.0"}
ADDED = {"add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"}
FEED_FORWARD = {"net.0.proj", "net.2"}


def under(prefix, names):
    return {f"{prefix}.{name}" for name in names}


def joint(attention):
    """Blocks with a stream of their own for the text."""
    both = under("ff", FEED_FORWARD) | under("ff_context", FEED_FORWARD)
    return under("transformer_blocks.N", under(attention, ATTENTION | ADDED) | both)


SINGLE = under("single_transformer_blocks.N", {"proj_mlp", "proj_out"} | under("attn", ATTENTION - {"to_out.0"}))
TWO = under("attn1", ATTENTION) | under("attn2", ATTENTION)
CASES = {
    "WanTransformer3DModel": (
        dict(patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16)
        | dict(freq_dim=16, ffn_dim=32, num_layers=2, image_dim=16, added_kv_proj_dim=24),
        under("blocks.N", TWO | {"attn2.add_k_proj", "attn2.add_v_proj"} | under("ffn", FEED_FORWARD)),
    ),
    "LTXVideoTransformer3DModel": (
        dict(in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16, num_layers=2)
        | dict(caption_channels=16),
        under("transformer_blocks.N", TWO | under("ff", FEED_FORWARD)),
    ),
    "CogVideoXTransformer3DModel": (
        dict(num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=8, text_embed_dim=16)
        | dict(num_layers=2, sample_width=8, sample_height=8, sample_frames=9, max_text_seq_length=8),
        under("transformer_blocks.N", under("attn1", ATTENTION) | under("ff", FEED_FORWARD)),
    ),
    "HunyuanVideoTransformer3DModel": (
        dict(in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1, num_single_layers=1)
        | dict(num_refiner_layers=1, text_embed_dim=16, pooled_projection_dim=8, rope_axes_dim=(2, 4, 4)),
        joint("attn") | SINGLE,
    ),
    "MochiTransformer3DModel": (
        dict(patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16, in_channels=4)
        | dict(text_embed_dim=16, time_embed_dim=8, max_sequence_length=8),
        joint("attn1"),
    ),
    "FluxTransformer2DModel": (
        dict(patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2)
        | dict(joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8)),
        joint("attn") | SINGLE,
    ),
}


@pytest.mark.parametrize("wrapped", ["", "module.", "transformer._orig_mod."])
@pytest.mark.parametrize("name", CASES)
def test_hidden_matrices_of(name, wrapped):
    """Exactly attention and feed-forward within blocks; embedders, modulation, first and last projections never."""
    options, expected = CASES[name]
    with torch.device("meta"):
        model = getattr(diffusers, name)(**options)
    found = {
        re.sub(r"\.\d+\.", ".N.", n, count=1).removesuffix(".weight")
        for n, p in model.named_parameters()
        if hidden_matrix(wrapped + n, p)
    }
    assert found == expected


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("proj_out.weight", False),
        ("transformer.proj_in.weight", False),
        ("down_blocks.0.attentions.1.proj_out.weight", True),
        ("single_transformer_blocks.3.proj_out.weight", True),
        ("single_transformer_blocks.3.proj_out.lora_A.default.weight", True),
        ("pos_frequencies", False),
        ("post_attn.weight", True),
    ],
)
def test_hidden_by_name(name, hidden):
    assert hidden_matrix(name, torch.zeros(8, 8)) == hidden


@pytest.mark.parametrize("kind", [Muon, NAMO])
def test_matrices_without_names_are_warned_of(kind):
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    with pytest.warns(UserWarning, match=rf"{kind.__name__} is given matrices without names .*pass model.named_parameters"):
        kind(model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kind(model.named_parameters())
        kind([{"params": [model[1].weight], "algorithm": "matrix"}, {"params": [model[0].weight], "algorithm": "adamw"}])
        kind([nn.Parameter(torch.zeros(3))])
        AdamW(model.parameters())
