"""The settings of ``visviva evaluate``: clips in, metrics.json, report.html and plots out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from tyro.conf import Positional, UseAppendAction, arg

from visviva.configs.schema import Recipe

Benchmark = Literal[
    "physics-iq",
    "pisa",
    "newtonbench",
    "morpheus",
    "vbench-motion",
    "frechet",
    "fidelity",
    "force",
    "videophy2",
    "phygenbench",
    "vbench2",
]


class EvaluateRecipe(Recipe):
    """Measure clips, generated or real: metrics against ground truth where there is some, trajectories, laws and gravity
    otherwise."""

    verb: Literal["evaluate"] = "evaluate"
    """Which verb this recipe is for."""
    clips: Positional[list[str]] = []
    """What to measure: video files, folders of videos, data sets (folders with metadata.jsonl, as 'visviva simulate' and
    'visviva generate' write them)."""
    output: Annotated[str, arg(aliases=["--out"])] = "runs/evaluate"
    """Folder to write: metrics.json, report.html, plots."""
    reference: str = ""
    """Data set with the true clips; generated clips are paired with it by their 'scene'. Empty: the clips that they were
    generated from, where their metadata names them. The clips of a data set that has ground truth are measured against their
    own."""
    baseline: str = ""
    """An earlier evaluation (its folder or metrics.json) of the same scenes to compare with: paired bootstrap, clustered by
    scene."""
    name: str = ""
    """What the run is called in reports; empty takes the first clip's or folder's name."""
    where: dict[str, str | int | float] = {}
    """Only rows of data sets with these values, for example {split: ood, primitive: free_fall}."""
    limit: int | None = Field(None, ge=1)
    """Only the first clips."""
    max_frames: int | None = Field(None, ge=5)
    """Only the first frames of each recording."""
    frame_rate: float | None = Field(None, gt=0)
    """Frames per second of folders of frames (PNG, JPEG), which know none themselves."""

    metres_per_pixel: float | None = Field(None, gt=0)
    """Recordings: scale at the moving object's depth [m/px]; with it g is measured."""
    scale_error: float = Field(0.03, ge=0)
    """Relative standard error of metres_per_pixel. 0.03 allows for a scale read 10 cm off the object's plane at 3 m."""
    object_size: float | None = Field(None, gt=0)
    """Recordings: known width of the moving object (a ball's diameter) [m]; measures the scale where metres_per_pixel is not
    given."""
    object_size_error: float = Field(0.015, ge=0)
    """Relative standard error of object_size (a tennis ball is made to +-2.4 %)."""
    time_scale: float = Field(1.0, gt=0)
    """Recordings: seconds of reality per second of playback; 0.25 for a clip slowed down four times."""
    timing_error: float = Field(0.005, ge=0)
    """Relative standard error of the frame clock."""
    motion: Literal["auto", "fall", "pendulum", "ramp"] = "auto"
    """Recordings: the kind of motion; auto recognises it."""
    ramp_angle: float | None = Field(None, ge=0, lt=90)
    """Recordings: inclination of the surface that the object slides or rolls on [deg], 0 for a level one; left out, it is read
    in the image, which takes a camera held level."""
    ramp_angle_error: float = Field(0.5, ge=0)
    """Standard error of ramp_angle [deg]."""

    laws: bool = True
    """Read the laws' residuals too."""
    level: float = Field(0.95, gt=0.5, lt=1)
    """Confidence level of intervals."""
    resamples: int = Field(2000, ge=100)
    """Bootstrap resamples."""
    seed: int = Field(0, ge=0)
    """Seed of the bootstrap."""
    shown: int = Field(8, ge=0)
    """Clips with a film and plots in the report, evenly from worst to best."""

    benchmark: UseAppendAction[list[Benchmark]] = []
    """Run public benchmarks instead, each with its own numbers in benchmarks.json and report.html; may be given several
    times. What each needs (without it, it is skipped with the reason; docs/benchmarks.md has an example of each):
    physics-iq: --reference, the benchmark's folder of real clips, CLIPS named by test id (0001_ANY.mp4), 5 s each.
    pisa, newtonbench, fidelity: --reference, a data set of the true clips (or clips that name their source).
    morpheus: one object in free flight or a pendulum per clip, named by --experiment or by the rows.
    vbench-motion: nothing; --encoder, a local image model, calibrates subject consistency.
    frechet: --reference, a folder of real clips; --encoder, a local video model.
    force: rows with force_angle, force_magnitude and x, y.
    videophy2, phygenbench, vbench2: --prompts, the suite's own files, and --judge."""
    prompts: str = ""
    """Benchmarks: local file or folder with the prompts and questions of a suite; none is shipped."""
    judge: str = ""
    """Benchmarks: who answers questions about clips: the folder of a vision-language model in transformers format, or
    module:function, called with (frames, question)."""
    encoder: str = ""
    """Benchmarks: folder of a frozen model in transformers format: VideoMAE or V-JEPA 2 (frechet), a ViT (vbench-motion).
    Empty: an untrained stand-in, and the numbers are labelled uncalibrated."""
    experiment: Literal["", "free_flight", "pendulum"] = ""
    """Benchmark morpheus: what the clips show; empty: the field 'experiment' or 'primitive' of each row."""
    codec: bool = False
    """Benchmark physics-iq: pass motion masks through lossy video, as the published pipeline does."""
