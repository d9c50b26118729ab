"""``visviva motion``: what is done with motions of people; `run` hands the recipe to its action."""

from __future__ import annotations

from pathlib import Path

from visviva.configs.motion import MotionRecipe


def run(recipe: MotionRecipe) -> Path:
    """Run the recipe's action and return the folder that it wrote.

    Example::

        from visviva.configs.motion import MotionRecipe
        from visviva.pipelines import motion

        folder = motion.run(MotionRecipe(files=["walk.bvh"]))
    """
    if recipe.action == "reestimate":
        from visviva.pipelines.motion.reestimate import reestimate

        return reestimate(recipe)
    if recipe.action == "generate":
        from visviva.pipelines.motion.generate import generate

        return generate(recipe)
    if recipe.action == "posttrain":
        from visviva.pipelines.motion.posttrain import posttrain

        return posttrain(recipe)
    if recipe.action == "render":
        from visviva.pipelines.motion.render import draw

        return draw(recipe)
    from visviva.pipelines.motion.evaluate import evaluate

    return evaluate(recipe)
