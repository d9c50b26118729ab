"""What the page of ``visviva playground`` runs: a clip from a first frame, a prompt and forces, and what is measured in it.

Each clip has a folder with first.png, prompts.jsonl and clip.mp4, and comes out of what ``visviva generate`` runs, so that the
command line beside it makes the same clip.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visviva.configs.generate import GenerateRecipe
from visviva.configs.objectives import Probe
from visviva.configs.playground import PlaygroundRecipe
from visviva.configs.posttrain import Model, Sampler
from visviva.data.fit import fit
from visviva.data.manifest import output_folder
from visviva.data.video import write_video
from visviva.errors import InputError
from visviva.models.backbones.lora import load_lora
from visviva.models.control import Force, Point, parse_force, table
from visviva.models.control.saved import controlled
from visviva.models.probes import Moving
from visviva.physics.laws.law import Residual
from visviva.physics.tracks import tracks_of_masks
from visviva.pipelines import generate
from visviva.pipelines.posttrain.verifier import build

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""Pictures that are read; others have decoders that few have tried to break."""
PIXELS = 2**24
"""Most pixels of a picture."""
OBJECTS, NEAR = 4, 1 / 8
"""How many moving objects are looked for, and how far from an arrow's start its object may begin [widths]."""
NO_CONTROL = (
    "This model has no force control: arrows and wind cannot act, and a clip with them is refused. Open the page with --lora "
    "tiny-force (for the shipped model), or with a folder trained by visviva posttrain --config posttrain-force."
)


@dataclass(frozen=True)
class Made:
    """What one press of the button made.

    Attributes:
        clip: the video file.
        command: the command line that makes the same clip again.
        told: what was measured, in one line.
        paths: where each arrow's object went, if it moved: points (x, y), shares of width and height, y down.
    """

    clip: Path
    command: str
    told: str
    paths: list[list[list[float]]]


class Studio:
    """A loaded model, the laws that its clips are held against, and the folder that they are written to.

    Raises:
        InputError: a model that takes no first frame, whose size is not known, or that cannot be loaded.

    Example::

        studio = Studio(PlaygroundRecipe(lora="runs/force/lora-ema"))
        picture, prompt = studio.scene("push", seed=3)
        made = studio.make(picture, prompt, [Point(0.4, 0.6, angle=30, magnitude=0.8)], seed=0, steps=8)
    """

    def __init__(self, recipe: PlaygroundRecipe) -> None:
        self.recipe, self.output = recipe, output_folder(recipe.output)
        settings = self._settings(self.output, recipe.steps)
        cpu = recipe.device == "cpu" or not torch.cuda.is_available()
        self.backbone = generate.load(settings, torch.device("cpu" if cpu else "cuda"))
        if not self.backbone.image_to_video:
            raise InputError(
                f"{recipe.model}: a {self.backbone.family} model takes no first frame; take one that does, as Wan's"
            )
        self.size = generate.home(settings, self.backbone)
        if recipe.lora:
            load_lora(self.backbone, recipe.lora)
        self.controlled = controlled(self.backbone.transformer)
        self.verifier = build(recipe.laws, Probe(flow="dis"), self.backbone.vae, device=self.backbone.device)

    def scene(self, primitive: str, seed: Any) -> tuple[np.ndarray, str]:
        """Draw the first frame of a simulated scene, (H, W, 3) uint8, and say what it shows."""
        from visviva.data.scenes.simulation import simulate

        s = self.size
        [clip] = simulate(
            primitive, 1, whole(seed, "the scene"), height=s.height, width=s.width, frames=s.frames, fps=s.fps, flow=False
        )
        return pixels(clip.frames[0]), clip.caption

    def picture(self, file: str | Path) -> np.ndarray:
        """Read a picture that somebody brought, at the model's size, (H, W, 3) uint8.

        Raises:
            InputError: no picture of `FORMATS`, a damaged one, or one of more than `PIXELS` pixels.
        """
        from PIL import Image, ImageOps

        try:
            with Image.open(file, formats=FORMATS) as image:
                small = image.width * image.height <= PIXELS
                colours = np.array(ImageOps.exif_transpose(image).convert("RGB")) if small else None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"{Path(file).name}: no picture that can be read; give a whole {', '.join(FORMATS)}") from error
        if colours is None:
            raise InputError(f"{Path(file).name}: {image.width} x {image.height} pixels; give at most {PIXELS} in all")
        return pixels(fit(torch.from_numpy(colours).permute(2, 0, 1).float() / 255, self.size.height, self.size.width))

    def make(self, picture: np.ndarray, prompt: str, forces: Sequence[Force], seed: Any, steps: Any) -> Made:
        """Generate a clip from a first frame (H, W, 3) uint8, write it, and measure it.

        Raises:
            InputError: forces for a model without force control, forces that do not go together, no prompt, numbers that are
                no whole ones.
        """
        from PIL import Image

        row = {"id": "clip", "prompt": prompt.strip(), "image": "first.png", "seed": whole(seed, "the seed")}
        if not row["prompt"]:
            raise InputError("no prompt; say what the clip shows")
        if forces and not self.controlled:
            raise InputError(NO_CONTROL)
        table(forces)  # refuses forces that do not go together
        count = min(max(1, whole(steps, "the number of steps")), 100)
        folder = self._folder()
        Image.fromarray(picture).save(folder / "first.png")
        (folder / "prompts.jsonl").write_text(json.dumps(row) + "\n")
        settings = self._settings(folder, count, forces)
        frames = generate.make(settings, self.backbone, self.size, generate.plan(settings))
        write_video(folder / "clip.mp4", frames[0], self.size.fps, crf=settings.crf)
        return Made(folder / "clip.mp4", command(settings), *self.measure(frames, forces))

    @torch.no_grad()
    def measure(self, frames: Tensor, forces: Sequence[Force]) -> tuple[str, list[list[list[float]]]]:
        """Say where the pushed objects of a clip (1, T, 3, H, W) went and how far it is from the laws; return their paths, too.

        Objects are found by their motion; an arrow's object is the one that begins nearest to its start. The laws judge
        those, or without any the largest thing that moves.
        """
        size, points = self.size, [force for force in forces if isinstance(force, Point)]
        frames = frames.to(self.backbone.device)
        masks = Moving(objects=OBJECTS)(frames, None)
        tracks = tracks_of_masks(masks).to("cpu")
        told, paths, judged = [], [], set()
        for number, point in enumerate(points, start=1):
            start = torch.tensor([point.x * size.width - 0.5, (1 - point.y) * size.height - 0.5])
            n = nearest(tracks.positions[0], tracks.visible[0], start, NEAR * size.width)
            if n is None:
                told.append(f"arrow {number}: nothing that begins there moves")
                continue
            path = tracks.positions[0][tracks.visible[0, :, n], n]
            told.append(f"arrow {number}: {journey(path)} (pushed towards {point.angle:.0f})")
            paths.append(((path + 0.5) / torch.tensor([size.width, size.height])).tolist())
            judged.add(n)
        fps = torch.tensor([size.fps], device=frames.device)
        verdict = self.verifier.score(frames, fps, masks=masks[:, :, sorted(judged) or [0]])
        laws = ", ".join(residual(name, found) for name, found in verdict.residuals.items())
        return "; ".join([*told, f"laws of {'what was pushed' if judged else 'what moves most'}: {laws}"]), paths

    def _folder(self) -> Path:
        self.output.mkdir(parents=True, exist_ok=True)
        last = max((int(path.name) for path in self.output.iterdir() if path.name.isdigit()), default=0)
        folder = self.output / f"{last + 1:04d}"
        folder.mkdir()
        return folder

    def _settings(self, folder: Path, steps: int, forces: Sequence[Force] = ()) -> GenerateRecipe:
        r = self.recipe
        return GenerateRecipe(
            prompts=str(folder / "prompts.jsonl"),
            output=str(folder / "again"),
            model=Model(path=r.model, dtype=r.dtype, device=r.device),
            lora=r.lora,
            force=[text(force) for force in forces],
            sampler=Sampler(steps=steps, guidance_scale=r.guidance_scale),
        )


def command(settings: GenerateRecipe) -> str:
    """Return the command line that makes the clip again."""
    model, sampler = settings.model, settings.sampler
    words = ["visviva", "generate", settings.prompts, "--output", settings.output]
    words += ["--model.path", model.path, "--model.dtype", model.dtype, "--model.device", model.device]
    words += ["--sampler.steps", str(sampler.steps), "--sampler.guidance-scale", str(sampler.guidance_scale)]
    words += ["--lora", settings.lora] if settings.lora else []
    return shlex.join([*words, *(["--force", *settings.force] if settings.force else [])])


def text(force: Force) -> str:
    """Return a force as `visviva.models.control.parse_force` reads it, to the last digit.

    >>> text(Point(0.4, 0.6, angle=30.0, magnitude=0.8))
    'point:x=0.4,y=0.6,angle=30.0,magnitude=0.8'
    """
    return f"{type(force).__name__.lower()}:" + ",".join(f"{f.name}={getattr(force, f.name)!r}" for f in fields(force))


def drawn(arrows: Any) -> list[Force]:
    """Return the arrows that the page sent, as forces.

    Raises:
        InputError: no list of objects with x, y, angle and magnitude, or one that is no force.
    """
    if not isinstance(arrows, list) or not all(isinstance(arrow, dict) for arrow in arrows):
        raise InputError(f"the page sent arrows that are no list of objects ({str(arrows)[:60]}); load it again")
    return [parse_force("point:" + ",".join(f"{name}={value}" for name, value in arrow.items())) for arrow in arrows]


def whole(value: Any, what: str) -> int:
    """Return a number from the page as a whole one in [0, 2^63).

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, int | float) or not 0 <= value < 2**63 or value != int(value):
        raise InputError(f"{what} is {value!r}; give a whole number, 0 or more")
    return int(value)


def pixels(frame: Tensor) -> np.ndarray:
    """Return a frame (3, H, W) in [0, 1] as (H, W, 3), uint8."""
    return np.ascontiguousarray((frame.clamp(0, 1) * 255 + 0.5).byte().permute(1, 2, 0).cpu().numpy())


def nearest(positions: Tensor, visible: Tensor, start: Tensor, reach: float) -> int | None:
    """Return which object (T, N, 2) is first seen nearest to a place; None if none is within reach [px]."""
    seen = visible.sum(0) >= 2
    first = positions[visible.int().argmax(0), torch.arange(positions.shape[1])]
    away = torch.where(seen, (first - start).norm(dim=-1), math.inf)
    return int(away.argmin()) if float(away.min()) <= reach else None


def journey(path: Tensor) -> str:
    """Say how far and whereto a path (t, 2) [px] leads."""
    dx, dy = (path[-1] - path[0]).tolist()
    return f"its object went {math.hypot(dx, dy):.1f} px towards {math.degrees(math.atan2(-dy, dx)) % 360:.0f} degrees"


def residual(name: str, found: Residual) -> str:
    """Say a law's residual of the first clip of a batch."""
    sigma = float(found.sigma[0])
    doubt = f" ± {sigma:.1g}" if math.isfinite(sigma) else ""
    return f"{name} {float(found.value[0]):.3g}{doubt}" if bool(found.valid[0]) else f"{name} could not be measured"
