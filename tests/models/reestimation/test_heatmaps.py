"""Skeletons as heat maps, and the adapter that adds them to frozen diffusion networks."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from visviva.errors import InputError
from visviva.models.backbones.tiny import tiny_wan
from visviva.models.reestimation.heatmaps import SkeletonAdapter, heatmaps


def points(batch=1):
    return 0.4 * (torch.rand(batch, 17, 2, generator=torch.Generator().manual_seed(0)) - 0.5)


def test_a_joint_is_brightest_where_it_is_and_a_bone_all_along():
    image = points()
    maps = heatmaps(image, 32, 48, sigma=0.03)[0]
    assert maps.shape == (33, 32, 48)
    rows, columns = ((image[0, :, 1] + 0.5) * 32).long(), (image[0, :, 0] * 32 + 24).long()
    for joint in range(17):
        peak = int(maps[joint].argmax())
        assert (peak // 48, peak % 48) == (rows[joint], columns[joint])
    middle = (image[0, 1] + image[0, 0]) / 2  # of the first bone
    assert float(maps[17, int((middle[1] + 0.5) * 32), int(middle[0] * 32 + 24)]) > 0.6
    assert float(heatmaps(image, 32, 48, confidence=torch.zeros(1, 17)).max()) == 0


def test_gradients_reach_the_points():
    image = points().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: heatmaps(x, 6, 6, sigma=0.2), image)


def test_a_unet_is_untouched_at_first_and_guided_after_a_step():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, cross_attention_dim=8,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).requires_grad_(False)  # fmt: skip
    adapter = SkeletonAdapter((16, 32), width=8)
    maps, latents, text = heatmaps(points(2), 16, 16), torch.randn(2, 4, 16, 16), torch.randn(2, 5, 8)

    def guided():
        return unet(latents, 10, text, down_intrablock_additional_residuals=adapter(maps)).sample

    base = unet(latents, 10, text).sample
    assert torch.equal(guided(), base)
    rule = torch.optim.SGD(adapter.parameters(), 0.1)
    guided().square().mean().backward()
    assert all(float(stage.leave.weight.grad.abs().max()) > 0 for stage in adapter.stages)
    rule.step()
    assert float((guided() - base).abs().max()) > 1e-4


def test_wan_is_untouched_at_first_and_guided_after_its_last_layer_moves():
    torch.manual_seed(0)
    wan = tiny_wan("test", seed=0).pipeline.transformer.float().requires_grad_(False)
    channels, size = wan.config.in_channels, 8
    latents = torch.randn(1, channels, 2, size, size)
    text = torch.randn(1, 3, wan.config.text_dim)

    def said():
        return wan(latents, torch.tensor([500]), text, return_dict=False)[0]

    base, patch = said(), wan.config.patch_size[1]
    adapter = SkeletonAdapter((wan.patch_embedding.out_channels,), width=8, first=patch)
    feature = adapter(heatmaps(points(2), size, size))[0].unflatten(0, (1, 2)).transpose(1, 2)  # (B, C, frames, H, W)
    handle = SkeletonAdapter.added(wan.patch_embedding, feature)
    assert torch.equal(said(), base)
    handle.remove()
    torch.nn.init.normal_(adapter.stages[0].leave.bias)
    feature = adapter(heatmaps(points(2), size, size))[0].unflatten(0, (1, 2)).transpose(1, 2)
    handle = SkeletonAdapter.added(wan.patch_embedding, feature)
    assert float((said() - base).abs().max()) > 1e-4
    handle.remove()
    assert torch.equal(said(), base)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="17 joints, sizes > 0"):
        heatmaps(torch.zeros(1, 16, 2), 8, 8)
    with pytest.raises(InputError, match="power of 2"):
        SkeletonAdapter((8,), first=3)
