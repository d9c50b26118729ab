"""Networks of human motion: the diffusion transformer of body parts, its text encoder, and evaluators."""
