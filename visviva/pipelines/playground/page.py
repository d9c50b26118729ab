"""The page: a first frame with arrows drawn on it on the left, prompt and clip on the right; for this machine alone.

It binds to 127.0.0.1, answers only to that name, and tells the browser to load nothing from anywhere else (Content-Security-
Policy); gradio's reports to its makers are off. What a visitor did wrong is a sentence on the page.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from visviva.configs.playground import PlaygroundRecipe
from visviva.configs.simulate import Primitive
from visviva.errors import InputError, optional
from visviva.models.control import Wind
from visviva.pipelines.playground.studio import NO_CONTROL, Studio, drawn

HOST = "127.0.0.1"
MOST = 2**24
"""Most bytes of an uploaded file."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; frame-src 'none'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "frame-ancestors 'none'"
)
CANVAS = "<canvas width='512' height='512'></canvas>"
STYLE = "canvas { width: 100%; max-width: 512px; touch-action: none; cursor: crosshair; }"
HOW = (
    "Drag on the picture: a force pushes where the arrow begins, as hard as it is long (half the width is the most). "
    "A blue line shows where the object went."
)


def run(recipe: PlaygroundRecipe) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        InputError: the extra 'playground' is not installed, the model cannot be used, or the port is taken.
    """
    gradio = prepare(recipe)
    blocks = page(gradio, Studio(recipe))
    serve(blocks, recipe)
    print(f"the playground is at http://{HOST}:{recipe.port} (for this machine alone); Ctrl-C ends it", flush=True)  # noqa: T201
    blocks.block_thread()


def prepare(recipe: PlaygroundRecipe) -> Any:
    """Import gradio with its reports off and its uploads in the output folder."""
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    os.environ["GRADIO_TEMP_DIR"] = str((Path(recipe.output) / "uploads").resolve())
    return optional("gradio", "playground")


def serve(blocks: Any, recipe: PlaygroundRecipe) -> None:
    """Start to serve, and return."""
    trusted = optional("starlette.middleware.trustedhost", "playground").TrustedHostMiddleware
    middleware = optional("starlette.middleware", "playground").Middleware
    try:
        blocks.launch(
            server_name=HOST, server_port=recipe.port, share=False, prevent_thread_lock=True, quiet=True, ssr_mode=False,
            pwa=False, mcp_server=False, enable_monitoring=False, footer_links=[], max_file_size=MOST,
            allowed_paths=[str(Path(recipe.output).resolve())], theme=_theme(),
            app_kwargs={"middleware": [middleware(trusted, allowed_hosts=[HOST, "localhost"]), middleware(Policy)]},
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"port {recipe.port} of {HOST} cannot be opened, perhaps it is in use; give another --port") from error


def _theme() -> Any:
    """Fonts that every machine has; gradio's own come over the network."""
    themes = optional("gradio.themes", "playground")
    return themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


class Policy:
    """ASGI middleware: every answer forbids the browser to load anything from elsewhere."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""

        async def forbidding(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, forbidding)


def page(gradio: Any, studio: Studio) -> Any:
    """Return the page, a ``gradio.Blocks``."""
    start = "push" if studio.controlled else "parabolic_throw"
    first, caption = studio.scene(start, 0)
    script = (Path(__file__).parent / "arrows.js").read_text()
    with gradio.Blocks(title="visviva playground", analytics_enabled=False, delete_cache=(3600, 86400)) as blocks:
        gradio.Markdown(f"# visviva playground\n{HOW if studio.controlled else NO_CONTROL}", elem_id="what")
        picture = gradio.State(first)
        with gradio.Row():
            with gradio.Column():
                canvas = gradio.HTML(
                    shown(first), html_template=CANVAS, css_template=STYLE, js_on_load=script, elem_id="picture"
                )
                clear = gradio.Button("Remove the arrows", size="sm", elem_id="clear")
                with gradio.Row():
                    primitive = gradio.Dropdown(list(get_args(Primitive)), value=start, label="Simulated scene")
                    number = gradio.Number(0, label="Number of the scene", precision=0)
                with gradio.Row():
                    draw = gradio.Button("Draw this scene", size="sm", elem_id="draw")
                    upload = gradio.UploadButton("Upload a picture", size="sm", file_types=["image"], elem_id="upload")
                windy = gradio.Checkbox(
                    False,
                    label="Wind instead of arrows (towards 0 degrees: right, 90: up; speed 1: the strongest trained)",
                    elem_id="windy",
                )
                with gradio.Row():
                    angle = gradio.Slider(0, 360, 0, step=1, label="Whereto [degrees]")
                    speed = gradio.Slider(0, 1, 0.5, step=0.01, label="Speed")
            with gradio.Column():
                prompt = gradio.Textbox(caption, label="Prompt", max_length=2000, elem_id="prompt")
                with gradio.Row():
                    seed = gradio.Number(0, label="Seed of the noise", precision=0)
                    steps = gradio.Slider(1, 100, studio.recipe.steps, step=1, label="Sampler steps")
                make = gradio.Button("Generate", variant="primary", elem_id="make")
                clip = gradio.Video(label="Clip", autoplay=True, loop=True, height=384, elem_id="clip")
                told = gradio.Textbox(label="What was measured", lines=2, interactive=False, elem_id="told")
                again = gradio.Textbox(label="The same clip again", lines=2, interactive=False, elem_id="again")

        def on_draw(kind: Any, number: Any) -> tuple[Any, ...]:
            try:
                frame, says = studio.scene(kind, number)
            except InputError as error:
                return gradio.skip(), gradio.skip(), gradio.skip(), f"Error: {error}"
            return frame, shown(frame), says, ""

        def on_upload(file: Any) -> tuple[Any, ...]:
            try:
                frame = studio.picture(file)
            except InputError as error:
                return gradio.skip(), gradio.skip(), f"Error: {error}"
            return frame, shown(frame), ""

        def on_make(frame: Any, value: Any, windy: Any, angle: Any, speed: Any, prompt: Any, seed: Any, steps: Any) -> Any:
            try:
                arrows = value.get("arrows", []) if isinstance(value, dict) else value
                forces = [*drawn(arrows), *([Wind(float(angle), float(speed))] if windy else [])]
                made = studio.make(frame, str(prompt), forces, seed, steps)
            except InputError as error:
                return gradio.skip(), gradio.skip(), f"Error: {error}", ""
            return str(made.clip), shown(frame, arrows, made.paths), made.told, made.command

        private: dict[str, Any] = dict(api_visibility="private", concurrency_limit=1, concurrency_id="studio")
        draw.click(on_draw, [primitive, number], [picture, canvas, prompt, told], **private)
        upload.upload(on_upload, upload, [picture, canvas, told], **private)
        clear.click(shown, picture, canvas, **private)
        fields = [picture, canvas, windy, angle, speed, prompt, seed, steps]
        make.click(on_make, fields, [clip, canvas, told, again], **private)
    return blocks


def shown(frame: np.ndarray, arrows: Sequence[Any] = (), paths: Sequence[Any] = ()) -> dict[str, Any]:
    """Return what the canvas shows (arrows.js): a picture (H, W, 3) uint8, arrows, measured paths."""
    from PIL import Image

    Image.fromarray(frame).save(file := io.BytesIO(), "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return {"picture": url, "arrows": list(arrows), "paths": list(paths)}
