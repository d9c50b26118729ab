"""A V-JEPA 2 of transformers' own class with tiny random weights, saved the way real ones are."""


def saved_vjepa2(folder, crop_size):
    """Save the model in a folder and return it; ``crop_size`` is the image side that it takes [px]."""
    import torch
    from transformers import VJEPA2Config, VJEPA2Model

    config = VJEPA2Config(
        patch_size=8, crop_size=crop_size, frames_per_clip=8, tubelet_size=2, hidden_size=24, num_attention_heads=2,
        num_hidden_layers=2, mlp_ratio=2.0, pred_hidden_size=16, pred_num_attention_heads=2, pred_num_hidden_layers=2,
        pred_num_mask_tokens=2, pred_mlp_ratio=2.0,
    )  # fmt: skip
    torch.manual_seed(0)
    VJEPA2Model(config).save_pretrained(folder, safe_serialization=True)
    return folder
