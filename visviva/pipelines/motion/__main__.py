"""``accelerate launch -m visviva.pipelines.motion posttrain --config RECIPE``: ``visviva motion`` in several processes.

Exit status: 0 done, 2 an input that cannot be used, 3 the motions of a training collapsed.
"""

from visviva.configs.motion import MotionRecipe
from visviva.configs.schema import parse
from visviva.exit import leave
from visviva.pipelines.motion import run
from visviva.pipelines.status import status

if __name__ == "__main__":
    leave(status(lambda: run(parse(MotionRecipe, prog="visviva motion"))))
