"""What runs: one module or folder per verb, each with ``run(recipe)``."""
