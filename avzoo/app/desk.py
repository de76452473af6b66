"""Where the page's uploads go: checked, answered, removed, one after the other."""

from __future__ import annotations

import functools
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from avzoo import hub, registry
from avzoo.app import answer
from avzoo.clip import MediaInfo, probe
from avzoo.errors import AvzooError
from avzoo.explaining import explain
from avzoo.models.base import AVModule

MOST_PIXELS = 4096 * 2304  # of a picture: some windows hold fifty of them
TAB = re.compile(r"^[0-9a-f]{8}-")  # what page.js puts before the name of a file
LAST_WINDOW = 10  # s that `end` waits for the window that is being answered
LAST_WORD = 0.5  # s for the page to hear of it afterwards


@dataclass(eq=False)
class Desk:
    """Answers one clip after the other.

    Attributes:
        models: What can be chosen, by name.
        folder: Where uploads are; nothing outside it is ever read.
        max_seconds: Of a clip.
        max_mb: Of a file, in 2^20 bytes, as Gradio counts.
    """

    models: Mapping[str, registry.Ref]
    folder: Path
    max_seconds: float
    max_mb: float
    _busy: threading.Lock = field(default_factory=threading.Lock, init=False)
    _ended: threading.Event = field(default_factory=threading.Event, init=False)

    def ask(self, upload: str, name: str, progress: Callable[[float, str], None]) -> tuple[str, str]:
        """What a model says of an upload, which is gone afterwards.

        Args:
            upload: Its path, `folder` / some digits / the tab it was dropped in - its name.
            name: Of a model.
            progress: Told the share that is done, and in words; if it raises an `AvzooError`, the clip is given up.

        Returns:
            The timeline and the answer as HTML; of what cannot be answered, "" and a sentence.
        """
        if not upload:
            return "", answer.sentence("First drop a video, or record one with the camera.")
        path = next((path for path in self.folder.glob("*/*") if str(path) == upload and path.is_file()), None)
        if path is None:
            return "", answer.sentence("This clip is not there (any more): drop it again.")
        with tempfile.TemporaryDirectory(dir=self.folder) as own:  # the same clip may come again meanwhile
            path = path.rename(Path(own, path.name))
            with self._busy:
                return self._answer(path, name, progress)

    def end(self) -> None:
        """Give up what is being answered: PyTorch aborts a program that ends while it works."""
        self._ended.set()
        if self._busy.locked() and self._busy.acquire(timeout=LAST_WINDOW):
            self._busy.release()
            time.sleep(LAST_WORD)

    def _answer(self, path: Path, name: str, progress: Callable[[float, str], None]) -> tuple[str, str]:
        shown = TAB.sub("", path.name)

        def tell(share: float, words: str) -> None:
            if self._ended.is_set():
                raise AvzooError("`avzoo app` was ended")
            progress(share, words)

        try:
            tell(0.0, f"loading {name}")
            model = self.load(name)
            info = self.check(path)
            found = explain(
                path,
                model,
                top_k=len(model.classes),
                modality="visual" if not info.has_audio else "both" if info.has_video else "audio",
                on_damage="pad",
                on_window=lambda t: tell(t / max(t, info.duration), f"{info.duration:.0f} s of clip"),
            )
            damage = found.damage.replace(f"{path}: ", "")
            said = answer.answer(replace(found, video=Path(shown), model=name, damage=damage))
            return answer.timeline(found), said
        except (AvzooError, OSError) as error:
            return "", answer.sentence(str(error).replace(str(path), shown).replace(path.name, shown))
        except (MemoryError, RuntimeError) as error:  # PyTorch's: RuntimeError, for the CPU's as for the GPU's
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            return "", answer.sentence(f"{shown}: needs more memory than there is: cut it, or shrink its pictures")

    def check(self, path: Path) -> MediaInfo:
        """What a clip that may be asked about is, by its header.

        Raises:
            AvzooError: If it may not.
        """
        if (size := path.stat().st_size / 2**20) > self.max_mb:
            raise AvzooError(f"{path}: has {size:.0f} MB, and {self.max_mb:g} MB is the limit here: cut it")
        info = probe(path)
        if info.is_photo:
            raise AvzooError(f"{path}: is a photo: drop a video, with sound")
        if info.duration > self.max_seconds:
            raise AvzooError(
                f"{path}: is {info.duration:.0f} s long, and {self.max_seconds:g} s is the limit here: cut it, or run"
                f" `avzoo predict {path.name} --explain`, which has none"
            )
        if info.width * info.height > MOST_PIXELS:
            raise AvzooError(
                f"{path}: has pictures of {info.width} x {info.height}, and 4K is the limit here: shrink it"
            )
        return info

    def knows(self, name: str) -> str:
        """The classes of a model as HTML."""
        try:
            return answer.classes(self.load(name))
        except AvzooError as error:
            return answer.sentence(str(error))

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a desk lives as long as the page
    def load(self, name: str) -> AVModule:
        """A model by the name it is chosen by; the last two stay in memory."""
        return hub.load_ref(self.models[name])
