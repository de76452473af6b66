"""A web page on this machine: drop a video or use the camera, see what a model says of it, when, why and where.

`page` runs it on 127.0.0.1 with Gradio. What the server sees of a clip is the copy that was uploaded to a folder of
its own, which is removed with the answer (the browser keeps the clip and sends it again for another model) and whole
at the end. The page loads nothing from elsewhere; a policy that goes with it makes the browser see to that.

```
__init__   the server, and what is on the page
├── desk        takes one upload after the other: limits, models
├── answer      what is said of a clip, as HTML
├── guard       who may ask, and for what
└── page.js, page.css    the playhead; how it looks
```
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avzoo import registry
from avzoo.app import answer
from avzoo.app.desk import Desk
from avzoo.app.guard import HOSTS, Guard
from avzoo.errors import AvzooError

if TYPE_CHECKING:
    import gradio as gr

HERE = Path(__file__).parent
WAITING = 8  # questions in the queue
ABANDONED = (300, 1800)  # s: how often is looked for uploads that nobody asked about, and how old they may become


def models(given: str | None) -> dict[str, registry.Ref]:
    """What can be chosen: the model that was asked for, and all that have weights.

    Raises:
        UnknownModelError: If no entry has the name that was asked for.
    """
    names = [name for name in registry.list_models() if registry.find(name).weights is not None]
    found = {name: registry.parse_ref(name) for name in names}
    if given is None:
        return found
    ref = registry.parse_ref(given, paths=True)
    if ref.name:
        registry.find(ref.name)
    return {given: ref} | found


@contextmanager
def page(
    model: str | None = None, *, port: int = 7860, max_seconds: float = 120.0, max_mb: float = 200.0
) -> Iterator[gr.Blocks]:
    """The page, being served until the block ends.

    Args:
        model: The one that is chosen at first: a name, `hf:owner/repo@commit` or a bundle's folder.
        port: Where on 127.0.0.1.
        max_seconds: Longest clip.
        max_mb: Largest file, in 2^20 bytes.

    Raises:
        AvzooError: If Gradio is not installed, or the port is taken.
    """
    choices = models(model)
    check_port(port)
    with tempfile.TemporaryDirectory(prefix="avzoo-app-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary).resolve()
        os.environ |= {  # Gradio reads them when it is imported, and later
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": str(folder),
            "GRADIO_EXAMPLES_CACHE": str(folder / "examples"),
        }
        try:
            import gradio as gr
            from starlette.middleware import Middleware
        except ModuleNotFoundError as missing:
            raise AvzooError("the page needs Gradio: pip install 'avzoo[app]'") from missing
        desk = Desk(choices, folder, max_seconds, max_mb)
        blocks = build(desk)
        blocks.queue(default_concurrency_limit=1, max_size=WAITING, api_open=False)
        blocks.launch(
            server_name=HOSTS[0],
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            max_file_size=int(max_mb * 2**20),
            ssr_mode=False,
            mcp_server=False,
            run_history=False,
            enable_monitoring=False,
            app_kwargs={"middleware": [Middleware(Guard)]},
            theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=answer.STYLE + (HERE / "page.css").read_text(encoding="utf-8"),
            js=(HERE / "page.js").read_text(encoding="utf-8"),
        )
        try:
            yield blocks
        finally:
            desk.end()
            blocks.close(verbose=False)


def check_port(port: int) -> None:
    """Whether a page can be served there.

    Raises:
        AvzooError: If not.
    """
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOSTS[0], port))
        except (OSError, OverflowError) as error:
            raise AvzooError(f"port {port} cannot be had ({error}): name another by --port") from error


def build(desk: Desk) -> gr.Blocks:
    """What is on the page, and what happens when."""
    import gradio as gr

    first = next(iter(desk.models))
    desk.load(first)  # or nobody would see a page

    async def ask(upload: str, name: str, progress: Any = gr.Progress()) -> tuple[str, str]:  # noqa: B008 - Gradio's way
        over = threading.Event()

        def tell(share: float, words: str) -> None:
            if over.is_set():
                raise AvzooError("another clip or model was chosen")
            progress(share, desc=words)

        try:
            return await asyncio.to_thread(desk.ask, upload, name, tell)
        finally:  # also when it is cancelled: so the thread learns of it
            over.set()

    blocks: gr.Blocks = gr.Blocks(title="avzoo", analytics_enabled=False, delete_cache=ABANDONED)
    with blocks:
        gr.HTML(answer.heading(desk.max_seconds, desk.max_mb), padding=False)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=320):
                clip = gr.Video(sources=["upload", "webcam"], show_label=False, elem_id="clip")
                upload = gr.Textbox(visible="hidden")  # where the clip is on the server: all that is sent of it
                gr.HTML(answer.unseen(), elem_id="unseen", padding=False)
                timeline = gr.HTML(elem_id="timeline", padding=False)
            with gr.Column(scale=2, min_width=320):
                model = gr.Dropdown(list(desk.models), value=first, label="Model", elem_id="model")
                knows = gr.HTML(desk.knows(first), elem_id="knows", padding=False)
                button = gr.Button("What happens here, and why?", variant="primary", elem_id="ask")
                said = gr.HTML(elem_id="answer", padding=False)
        chosen = model.change(desk.knows, model, knows, show_progress="hidden")
        chosen.failure(None, None, knows, js=f"() => {json.dumps(answer.BROKEN)}")
        asked = button.click(
            ask, [upload, model], [timeline, said], js="(...asked) => avzoo.send(...asked)", show_progress_on=said
        )
        asked.failure(None, None, [timeline, said], js=f"() => avzoo.failed({json.dumps(answer.BROKEN)})")
        gr.on(
            [clip.change, model.change],
            None,
            [clip, model],
            [upload, timeline, said],
            js="(...chosen) => avzoo.choose(...chosen)",
            cancels=[asked],
        )
    return blocks
