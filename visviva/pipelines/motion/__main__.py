"""``python -m visviva.pipelines.motion evaluate FILES``: the same as ``visviva motion``."""

from visviva.configs.motion import MotionRecipe
from visviva.configs.schema import parse
from visviva.pipelines.motion import run

if __name__ == "__main__":
    run(parse(MotionRecipe))
