"""``python -m visviva.pipelines.pretrain --config …``: the same as ``visviva pretrain``."""

from visviva.configs.pretrain import PretrainRecipe
from visviva.configs.schema import parse
from visviva.pipelines.pretrain import run

if __name__ == "__main__":
    run(parse(PretrainRecipe))
