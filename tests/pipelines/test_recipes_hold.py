"""No shipped reward is won by a clip that stands still, is empty or is noise, against what the model itself generates."""

import pytest
import torch

from visviva.configs.generate import GenerateRecipe
from visviva.configs.posttrain import PosttrainRecipe, Sampler
from visviva.configs.schema import RECIPES, load
from visviva.configs.simulate import SimulateRecipe
from visviva.data.dataset import ClipDataset
from visviva.data.video import read_video
from visviva.models.backbones.wan import WanBackbone
from visviva.pipelines import generate, simulate
from visviva.pipelines.posttrain.verifier import build, object_masks

CLIPS = 10
REWARDED = [p.stem for p in sorted(RECIPES.glob("posttrain-*.yaml")) if load(PosttrainRecipe, p.stem).rewarded]
ABLATIONS = {"posttrain-kinematic", "posttrain-mass"}  # one law alone, on purpose


def frames(path):
    return read_video(path).frames[None].float() / 255


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hold")
    truth = simulate.run(SimulateRecipe(output=str(folder / "truth"), clips=CLIPS, seed=77, arrays="small"))
    made = generate.run(
        GenerateRecipe(prompts=str(truth), output=str(folder / "made"), batch_size=CLIPS, sampler=Sampler(steps=4))
    )
    clips = ClipDataset(truth)
    return clips, sorted((made / "clips").glob("*.mp4")), WanBackbone.load("tiny").vae


def empty(clip, shown):
    """The first frame without its objects, for ever: they are painted over with the mean of what surrounds them."""
    gone = clip.masks[0].any(0)
    still = shown[:, :1].clone()
    still[:, :, :, gone] = still[:, :, :, ~gone].mean(-1, keepdim=True)
    return still.expand_as(shown).contiguous()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in REWARDED if n not in ABLATIONS])
def test_doing_nothing_never_beats_the_model(generated, name):
    clips, files, vae = generated
    reward = load(PosttrainRecipe, name).reward
    verifier = build(reward.laws, reward.probe, vae)
    losses: dict[str, list[float]] = {}
    for i, file in enumerate(files):
        clip, own = clips[i], frames(file)
        fps, true = torch.tensor([clip.fps]), clip.frames[None]
        masks = clip.masks[None].float()

        def judged(shown, masks=masks, fps=fps, reference=None):
            return verifier.score(shown, fps, object_masks(reward.mask_source, shown, masks), reference=reference)

        paired = own if reward.reference == "base" else true
        reference = verifier.measure(paired, fps, object_masks(reward.mask_source, paired, masks))
        idle = {"frozen": own[:, :1].expand_as(own).contiguous(), "empty": empty(clip, own), "noise": torch.rand_like(own)}
        found = {what: judged(shown, reference=reference) for what, shown in {"own": own, **idle}.items()}
        for what in idle:
            losses.setdefault(what, []).append(found[what].loss.item() - found["own"].loss.item())
            ranks = found[what].log_reward.item(), found["own"].log_reward.item()
            assert ranks[0] < ranks[1], f"{name}: clip {i} is beaten by a {what} one"
    assert all(sum(differences) / CLIPS > 0.2 for differences in losses.values()), losses
