"""Every family's real classes at tiny sizes with random weights and tiny text encoders, built without any download.

The autoencoders' posteriors are made narrow, so that pipelines that sample a first frame's latents from them agree with ours,
which take the mode.
"""

import diffusers
import torch
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from visviva.models.backbones.families import FAMILIES
from visviva.models.backbones.tiny import tiny_wan, tokenizer

TOKENS = 16


def build(variant, dtype=torch.float32):
    """Return the backbone of one variant, in its own seeded weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = VARIANTS[variant]()
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(dtype=dtype).eval() if dtype != torch.float32 else part.eval()
    return FAMILIES[type(pipeline).__name__](pipeline)


def t5():
    words = tokenizer(TOKENS)
    config = T5Config(
        vocab_size=len(words), d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4, relative_attention_num_buckets=8,
        dropout_rate=0.0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return {"tokenizer": words, "text_encoder": T5EncoderModel(config)}


def narrow(vae, conv):
    """Let the posterior's log-variance, the second half of the encoder's channels, be -30."""
    half = vae.config.latent_channels
    with torch.no_grad():
        conv.weight[half:] = 0
        conv.bias[half:] = -30
    return vae


# ---------------------------------------------------------------------------------------------------------------------- Wan


def wan_transformer(in_channels, image_dim=None):
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=in_channels, out_channels=16,
        text_dim=32, freq_dim=32, ffn_dim=32, num_layers=2, image_dim=image_dim, added_kv_proj_dim=24 if image_dim else None,
        pos_embed_seq_len=None, rope_max_seq_len=32,
    )  # fmt: skip


def wan_parts():
    text = tiny_wan("test")
    vae = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    return {"tokenizer": text.tokenizer, "text_encoder": text.text_encoder, "vae": vae, "scheduler": scheduler}


def wan21_t2v():
    return diffusers.WanPipeline(transformer=wan_transformer(16), **wan_parts())


def wan21_i2v():
    vision = CLIPVisionConfig(
        hidden_size=8, projection_dim=8, num_hidden_layers=2, num_attention_heads=2, image_size=32, intermediate_size=16,
        patch_size=16,
    )  # fmt: skip
    return diffusers.WanImageToVideoPipeline(
        transformer=wan_transformer(36, image_dim=8), image_encoder=CLIPVisionModel(vision).eval(),
        image_processor=CLIPImageProcessor(crop_size=32, size={"shortest_edge": 32}), **wan_parts(),
    )  # fmt: skip


def wan22_t2v():
    pair = {"transformer": wan_transformer(16), "transformer_2": wan_transformer(16)}
    return diffusers.WanPipeline(**pair, boundary_ratio=0.875, **wan_parts())


def wan22_i2v():
    pair = {"transformer": wan_transformer(36), "transformer_2": wan_transformer(36)}
    return diffusers.WanImageToVideoPipeline(**pair, boundary_ratio=0.9, **wan_parts())


def wan22_ti2v():
    return tiny_wan("test").pipeline


# ---------------------------------------------------------------------------------------------------------------------- LTX


def ltx_parts(timestep_conditioning=False, **scheduler):
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=4, attention_head_dim=8,
        cross_attention_dim=32, num_layers=2, caption_channels=32,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLLTXVideo(
        in_channels=3, out_channels=3, latent_channels=8, block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5, decoder_layers_per_block=(1,) * 5, spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False), decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4, upsample_factor=(1,) * 4, timestep_conditioning=timestep_conditioning, patch_size=1,
        patch_size_t=1, encoder_causal=True, decoder_causal=False,
    )  # fmt: skip
    vae.latents_mean.copy_(torch.linspace(-0.2, 0.3, 8))
    vae.latents_std.copy_(torch.linspace(0.5, 1.5, 8))
    narrow(vae, vae.encoder.conv_out.conv)
    euler = diffusers.FlowMatchEulerDiscreteScheduler(**scheduler)
    return {"transformer": transformer, "vae": vae, "scheduler": euler, **t5()}


def ltx():
    return diffusers.LTXPipeline(**ltx_parts(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, max_image_seq_len=4096,
        shift_terminal=0.1,
    ))  # fmt: skip


def ltx_condition():
    return diffusers.LTXConditionPipeline(**ltx_parts(timestep_conditioning=True))


# ---------------------------------------------------------------------------------------------------------------- CogVideoX


def cogvideox_parts(**config):
    config = {"in_channels": 4, **config}
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, out_channels=4, time_embed_dim=2, text_embed_dim=32, num_layers=2,
        sample_width=4, sample_height=4, sample_frames=9, patch_size=2, temporal_compression_ratio=4,
        max_text_seq_length=TOKENS, **config,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8,) * 4, latent_channels=4, layers_per_block=1, norm_num_groups=2, temporal_compression_ratio=4,
        invert_scale_latents=config["in_channels"] == 8 and "ofs_embed_dim" not in config,
    )  # fmt: skip
    narrow(vae, vae.encoder.conv_out.conv)
    ddim = diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False,
        snr_shift_scale=1.0,
    )  # fmt: skip
    return {"transformer": transformer, "vae": vae, "scheduler": ddim, **t5()}


def cogvideox():
    return diffusers.CogVideoXPipeline(**cogvideox_parts())


def cogvideox_i2v():
    rotary = {"use_rotary_positional_embeddings": True, "use_learned_positional_embeddings": True}
    return diffusers.CogVideoXImageToVideoPipeline(**cogvideox_parts(in_channels=8, **rotary))


def cogvideox15():
    return diffusers.CogVideoXPipeline(**cogvideox_parts(patch_size_t=2, use_rotary_positional_embeddings=True))


def cogvideox15_i2v():
    parts = cogvideox_parts(in_channels=8, patch_size_t=2, use_rotary_positional_embeddings=True, ofs_embed_dim=2)
    return diffusers.CogVideoXImageToVideoPipeline(**parts)


# ------------------------------------------------------------------------------------------------------ HunyuanVideo, Mochi


def hunyuan_parts(**config):
    short = tokenizer(77)
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, patch_size=1, patch_size_t=1, guidance_embeds=True, text_embed_dim=16,
        pooled_projection_dim=8, rope_axes_dim=(2, 4, 4), **config,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8,) * 4, layers_per_block=1, norm_num_groups=4,
    )  # fmt: skip
    clip = CLIPTextConfig(
        vocab_size=len(short), hidden_size=8, intermediate_size=37, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=77, projection_dim=32, pad_token_id=0, bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    euler = diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0)
    return {
        "transformer": transformer,
        "vae": vae,
        "scheduler": euler,
        "tokenizer_2": short,
        "text_encoder_2": CLIPTextModel(clip),
    }


def llama(words):
    return LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=37, num_hidden_layers=3, num_attention_heads=4, pad_token_id=0
    )


def hunyuan():
    words = tokenizer(512)
    return diffusers.HunyuanVideoPipeline(tokenizer=words, text_encoder=LlamaModel(llama(words)), **hunyuan_parts())


def hunyuan_i2v():
    """The pipeline's own template wants 576 image tokens, the first of them after five others."""
    words = tokenizer(512)
    marks = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>", "\n"]
    words.add_special_tokens({"additional_special_tokens": marks})
    vision = CLIPVisionConfig(
        hidden_size=8, projection_dim=8, num_hidden_layers=2, num_attention_heads=2, image_size=48, intermediate_size=16,
        patch_size=2,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=llama(words), image_token_index=words.convert_tokens_to_ids("<image>")
    )
    config.pad_token_id = 0
    return diffusers.HunyuanVideoImageToVideoPipeline(
        tokenizer=words, text_encoder=LlavaForConditionalGeneration(config),
        image_processor=CLIPImageProcessor(crop_size=48, size={"shortest_edge": 48}),
        **hunyuan_parts(image_condition_type="token_replace"),
    )  # fmt: skip


def mochi():
    transformer = diffusers.MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16, in_channels=12,
        out_channels=None, qk_norm="rms_norm", text_embed_dim=32, time_embed_dim=4, activation_fn="swiglu",
        max_sequence_length=TOKENS,
    )  # fmt: skip
    torch.nn.init.normal_(transformer.pos_frequencies)
    vae = diffusers.AutoencoderKLMochi(
        latent_channels=12, out_channels=3, encoder_block_out_channels=(32,) * 4, decoder_block_out_channels=(32,) * 4,
        layers_per_block=(1,) * 5,
    )  # fmt: skip
    euler = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    return diffusers.MochiPipeline(transformer=transformer, vae=vae, scheduler=euler, force_zeros_for_empty_prompt=True, **t5())


VARIANTS = {
    "wan2.1-t2v": wan21_t2v,
    "wan2.1-i2v": wan21_i2v,
    "wan2.2-t2v": wan22_t2v,
    "wan2.2-i2v": wan22_i2v,
    "wan2.2-ti2v": wan22_ti2v,
    "ltx-video": ltx,
    "ltx-video-0.9.5": ltx_condition,
    "cogvideox-t2v": cogvideox,
    "cogvideox-i2v": cogvideox_i2v,
    "cogvideox-1.5-t2v": cogvideox15,
    "cogvideox-1.5-i2v": cogvideox15_i2v,
    "hunyuan-video": hunyuan,
    "hunyuan-video-i2v": hunyuan_i2v,
    "mochi": mochi,
}
