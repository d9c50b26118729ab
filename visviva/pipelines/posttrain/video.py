"""Post-training of video models: clips of frames, judged by a probe and laws, validated as films."""

from __future__ import annotations

from typing import Any

from visviva.configs.posttrain import PosttrainRecipe
from visviva.errors import InputError
from visviva.models.probes import DIS
from visviva.physics.gate import Gate
from visviva.pipelines.posttrain import model
from visviva.pipelines.posttrain.aligned import Aligned
from visviva.pipelines.posttrain.annotator import Annotator
from visviva.pipelines.posttrain.batch import truth
from visviva.pipelines.posttrain.commanded import check_forces
from visviva.pipelines.posttrain.examples import Examples
from visviva.pipelines.posttrain.reward_backprop import RewardBackprop
from visviva.pipelines.posttrain.sft import Sft
from visviva.pipelines.posttrain.trainer import Objective, Trainer
from visviva.pipelines.posttrain.validation import Validation
from visviva.pipelines.posttrain.verifier import build, law_of


class VideoTrainer(Trainer):
    """The trainer of `visviva posttrain`.

    Args:
        recipe: everything.
        backbone: instead of loading the recipe's model.
        annotator: tells which physics a clip shows, for ``experts.align``; None reads it from the data.

    Raises:
        InputError: something in the recipe, the data or the checkpoints cannot be used.
    """

    examples: Examples

    def __init__(self, recipe: PosttrainRecipe, backbone: Any = None, annotator: Annotator | None = None) -> None:
        self.annotator = annotator
        self.aligned: Aligned | None = None
        super().__init__(recipe, backbone)

    def read(self) -> None:
        """Check the names of laws before anything large is loaded, then open the clips."""
        for law in self.recipe.reward.laws if self.recipe.rewarded else []:
            law_of(law)
        self.examples = Examples(self.recipe.data)

    def encode(self) -> None:
        """Precompute the conditions of training and validation clips; then the text encoder may go."""
        recipe = self.recipe
        self.validation = Validation(recipe, self.backbone, self.accelerator, self.examples, self.autocast)
        self.cache = model.conditions(self.backbone, self.examples, recipe, self.accelerator, recipe.learns_from_clips)
        if recipe.data.free_encoders:
            model.free_encoders(self.backbone, keep=recipe.weights == "full" and self.accelerator.is_main_process)

    def make_objective(self) -> Objective:
        """Return the recipe's objective, with losses on the experts' routing where it has any."""
        objective = super().make_objective()
        if self.recipe.experts.aligned and isinstance(objective, Sft):
            self.aligned = Aligned(objective, self.recipe, self.examples, self.accelerator, self.annotator)
            return self.aligned
        return objective

    def make_judge(self, sft: Sft) -> RewardBackprop:
        """Return the verifier's judge."""
        recipe, reward = self.recipe, self.recipe.reward
        verifier = build(reward.laws, reward.probe, self.backbone.vae, allow_trivial=reward.allow_trivial, device=self.device)
        if not verifier.differentiable and recipe.method != "grpo":
            raise InputError(
                f"reward.probe.flow is {reward.probe.flow!r}, which carries no gradient; "
                "use lucas_kanade, flow_network or raft to train, or method grpo, which needs none"
            )
        judge = RewardBackprop(self.rollout, verifier, reward, sft, Gate(DIS()))
        check_pairs(recipe, judge, self.examples, self.backbone.image_to_video)
        return judge

    def trainable(self) -> None:
        """Make weights trainable; experts per token learn to tell the annotator's phenomena apart."""
        model.make_trainable(self.backbone, self.recipe, () if self.aligned is None else self.aligned.phenomena)

    def further_identity(self) -> dict[str, Any]:
        """Return the annotator's name."""
        return {} if self.aligned is None else {"annotator": self.aligned.annotator.name}

    def known(self, clips: list[int]) -> dict[str, Any]:
        """Return the true clips, where they are judged or compared with; flow matching takes the cached latents alone."""
        found: dict[str, Any] = {} if self.judge is None else truth([self.examples[i] for i in clips], self.device)
        return found if self.aligned is None else found | self.aligned.truth(clips, self.device)

    def validate(self) -> None:
        """Generate the validation clips and log what they measure, with the averaged weights if the recipe says so."""
        if self.recipe.validation.every == 0:
            return
        if self.ema is not None and self.recipe.validation.ema and self.step > 0:
            with self.ema.applied(self.parameters):
                values = self.validation.run(self.model, self.step)
        else:
            values = self.validation.run(self.model, self.step)
        self.log.write(self.step, "validation", values)


def check_pairs(recipe: PosttrainRecipe, objective: RewardBackprop, examples: Examples, image_to_video: bool) -> None:
    """Refuse laws and masks that need a true clip paired with the generated one where there is none."""
    reward = recipe.reward
    paired = examples.paired and image_to_video
    needy = [term.law.name for term in objective.verifier.terms if "reference" in term.law.needs]
    if needy and (reward.reference == "none" or (reward.reference == "truth" and not paired)):
        reason = (
            "reward.reference is 'none'"
            if reward.reference == "none"
            else "the data are prompts without clips"
            if not examples.paired
            else "a text-to-video model's clip does not start from the data's clip"
        )
        raise InputError(
            f"the law {needy[0]!r} compares with a paired clip, but {reason}; set reward.reference: base (the frozen base's "
            "clip from the same noise), or take the kinematic laws with motion_floor"
        )
    bare = examples.without_masks() if paired and reward.mask_source in ("track", "truth") else None
    if reward.mask_source in ("track", "truth") and (bare is not None or not paired):
        reason = "a text-to-video clip does not start from the data's clip"
        if image_to_video:
            reason = f"the clip {str(bare)!r} has no masks" if bare is not None else "the data are prompts without clips"
        raise InputError(
            f"reward.mask_source is {reward.mask_source!r}, which needs the objects' true masks, but {reason}; use 'motion' "
            "(found in the generated clip) or 'none' (whole frame)"
        )
    check_forces(reward, objective.verifier, examples)
