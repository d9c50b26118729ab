"""Post-training: ``accelerate launch -m visviva.pipelines.posttrain --config RECIPE`` (= ``visviva posttrain``).

Example::

    from visviva.configs.posttrain import PosttrainRecipe
    from visviva.configs.schema import load
    from visviva.pipelines.posttrain import run

    trained = run(load(PosttrainRecipe, "posttrain-newton", **{"data.path": "data/train"}))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from visviva.configs.posttrain import PosttrainRecipe

if TYPE_CHECKING:
    from visviva.pipelines.posttrain.annotator import Annotator
    from visviva.pipelines.posttrain.trainer import Trained


def run(recipe: PosttrainRecipe, annotator: Annotator | None = None) -> Trained:
    """Train as the recipe says, or continue the run in its output; return where the weights are.

    ``annotator`` tells which physics a clip shows, and where (`visviva.pipelines.posttrain.annotator`), for
    ``experts.align``; None reads it from the data.

    Raises:
        InputError: something given cannot be used; the message says what to do.
        Collapse: the clips froze or their object vanished (an `InputError`); checkpoints are kept.
    """
    from visviva.pipelines.posttrain.parallel import leave
    from visviva.pipelines.posttrain.video import VideoTrainer

    recipe.check()
    try:
        return VideoTrainer(recipe, annotator=annotator).run()
    finally:
        leave()
