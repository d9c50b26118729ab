"""``python -m visviva.pipelines.playground``: the same as ``visviva playground``."""

from visviva.configs.playground import PlaygroundRecipe
from visviva.configs.schema import parse
from visviva.pipelines.playground import run

if __name__ == "__main__":
    run(parse(PlaygroundRecipe))
