"""Our GRPO and DPO losses against trl's own, on the same numbers: losses and gradients.

    pip install --no-deps trl datasets && pip install pyarrow dill xxhash multiprocess pandas
    python benchmarks/trl_parity.py --output benchmarks/results/trl_parity.json

trl trains language models and has no diffusion trainer, so its `_compute_loss` is run on clips as completions of one token:
the log-probability of a clip (GRPO), or minus its velocity error (DPO, whose beta is half of ours). What they only log is
stood in for. trl's advantages are computed inside its generation and are written here once more, with its own `nanstd`.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor

from visviva.pipelines.posttrain.preference import dpo
from visviva.pipelines.posttrain.sde import advantages, clipped

CLIPS, GROUP, CLIP, BETA = 24, 6, 1e-4, 5000.0


def grpo(now: Tensor, before: Tensor, advantage: Tensor) -> Tensor:
    """Return trl's loss of clips with these log-probabilities."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    trainer = MagicMock(
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, importance_sampling_level="token", beta=0.0,
        loss_type="grpo", epsilon_low=CLIP, epsilon_high=CLIP, use_vllm=False, current_gradient_accumulation_steps=1,
        aux_loss_enabled=False, args=SimpleNamespace(delta=None), _entropy_bonus_enabled=False,
    )  # fmt: skip
    trainer._get_per_token_logps_and_entropies.return_value = (now[:, None], torch.zeros(len(now), 1), None)
    trainer.accelerator.gather = lambda x: x
    trainer.accelerator.reduce = lambda x, *_, **__: x
    one = torch.ones(len(now), 1, dtype=torch.long)
    given = {"prompt_ids": one, "prompt_mask": one, "completion_ids": one, "completion_mask": one}
    return GRPOTrainer._compute_loss(trainer, None, given | {"advantages": advantage, "old_per_token_logps": before[:, None]})


def preference(right: Tensor, wrong: Tensor, right_base: Tensor, wrong_base: Tensor) -> Tensor:
    """Return trl's sigmoid loss of pairs with these velocity errors."""
    from trl.trainer.dpo_trainer import DPOTrainer

    trainer = MagicMock(
        aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True, f_divergence_type="reverse_kl", beta=BETA / 2,
        loss_types=["sigmoid"], loss_weights=[1.0], use_weighting=False,
    )  # fmt: skip
    trainer.accelerator.gather_for_metrics = trainer.accelerator.gather = lambda x: x
    said = -torch.cat([right, wrong])[:, None]
    none = torch.zeros(len(said), 1)
    logged = SimpleNamespace(log_probs=said, entropy=none, mean_logits=none, is_top1=none.bool())
    ids = torch.zeros(len(said), 2, dtype=torch.long)
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": torch.ones_like(ids)}
    given |= {"ref_chosen_logps": -right_base, "ref_rejected_logps": -wrong_base}
    return DPOTrainer._compute_loss(trainer, lambda **_: logged, given, False)


def apart(ours: Tensor, theirs: Tensor, by: list[Tensor]) -> dict[str, float]:
    """Return how far loss and gradients are from each other, relative to the largest."""
    one, two = (torch.cat([g.flatten() for g in torch.autograd.grad(x, by, retain_graph=True)]) for x in (ours, theirs))
    return {
        "loss": float(((ours - theirs).abs() / theirs.abs()).detach()),
        "gradient": float((one - two).abs().max() / two.abs().max()),
    }


def found() -> dict[str, Any]:
    """Compare."""
    from trl.trainer.utils import nanstd

    torch.manual_seed(0)
    reward = torch.randn(CLIPS // GROUP, GROUP, dtype=torch.float64)
    told = advantages(reward, limit=1e9)
    theirs = (reward - reward.nanmean(1, keepdim=True)) / (nanstd(reward, dim=1)[:, None] + 1e-4)
    before = torch.randn(CLIPS, dtype=torch.float64)
    now = (before + CLIP * torch.randn(CLIPS, dtype=torch.float64)).requires_grad_()  # some are clipped
    mine, _ = clipped(told.flatten(), now, before, CLIP)
    errors = [(0.1 + 1e-3 * torch.randn(CLIPS, dtype=torch.float64)).requires_grad_() for _ in range(2)]
    base = [0.1 + 1e-3 * torch.randn(CLIPS, dtype=torch.float64) for _ in range(2)]
    return {
        "advantages": float((told - theirs).abs().max()),
        "grpo": apart(mine.mean(), grpo(now, before, told.flatten()), [now]),
        "dpo": apart(dpo(*errors, *base, BETA)[0].mean(), preference(*errors, *base), errors),
    }


def main() -> None:
    """Compare, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", type=Path, default=Path("benchmarks/results/trl_parity.json"))
    output = options.parse_args().output
    told = {
        "command": "python benchmarks/trl_parity.py",
        "what": "largest relative difference to trl's losses and gradients, float64, random numbers of seed 0",
        "versions": {name: version(name) for name in ("torch", "trl", "transformers")},
        "apart": found(),
    }
    output.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told["apart"]))


if __name__ == "__main__":
    main()
