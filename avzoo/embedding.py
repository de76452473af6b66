"""Embeddings of clips, from the layers before a model's answer: a table for other tools, and a map.

A table has a row a segment; its columns, by name:

```
id, path      of the clip
start, end    of the segment, s
label         of the clip, where the data tells it (`label_source` "list" or "folder"), else the answer ("model")
answer        the model's best class of the segment, and its probability
audio, visual, fused    float32 [rows, n], whichever the model has
```
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from avzoo.clip import probe
from avzoo.data.clip_table import SPLIT_NAMES
from avzoo.data.tau_lists import read_list
from avzoo.errors import AvzooError
from avzoo.files import whole
from avzoo.inference import check_sounds, find_videos, sound_of
from avzoo.models import MODELS
from avzoo.models.base import AVModule
from avzoo.preprocess import read_window

Table = dict[str, NDArray[Any]]
FORMATS = (".npz", ".parquet")
KINDS = ("audio", "visual", "fused")
FEWEST = 4  # rows of a map


@dataclass(frozen=True)
class Source:
    """A clip to embed.

    Attributes:
        id: The stem of its file.
        video: Its file.
        audio: Its sound, where that is a file of its own.
        label: What the data says it is, or "".
        label_source: Who says so: "list", "folder" or "model".
    """

    id: str
    video: Path
    audio: Path | None = None
    label: str = ""
    label_source: Literal["list", "folder", "model"] = "model"


def find_sources(paths: Iterable[Path], *, audio: Path | None = None, pictures: bool = True) -> list[Source]:
    """Files as they are; folders as what is below them, labelled where the layout tells.

    A folder with `evaluation_setup/fold1_evaluate.csv` is a dataset in TAU's layout: that list's clips and labels. In a
    folder of two or more folders with videos, or in `train`, `val` and `test` of such, a clip's label is the name of
    the folder it is below.

    Args:
        paths: Files and folders.
        audio: The sound of a single silent video, or a folder that holds that of many, by their names.
        pictures: Whether pictures are read; if not, a folder's sound files count too.

    Raises:
        DataNotFoundError: If a folder holds no video, or `audio` none of the sounds.
        AnnotationError: If a list cannot be read.
        AvzooError: If a single file is given as the `audio` of several videos.
    """
    sources: list[Source] = []
    for path in paths:
        if (path / "evaluation_setup").is_dir():
            for line in read_list(path / "evaluation_setup" / "fold1_evaluate.csv", path):
                source: Literal["list", "model"] = "list" if line.label else "model"
                sources.append(Source(line.id, line.video, line.audio, line.label or "", source))
            continue
        files = find_videos([path], "both" if pictures else "audio")
        for file, label in zip(files, _classes(files, path) if path.is_dir() else [""], strict=True):
            sources.append(Source(file.stem, file, None, label, "folder" if label else "model"))
    check_sounds(audio, len(sources))
    return [replace(source, audio=source.audio or sound_of(source.video, audio)) for source in sources]


def _classes(files: Sequence[Path], root: Path) -> list[str]:
    """The folder of each file's class, if there are two or more; "" for a file in none."""
    folders = [file.relative_to(root).parts[:-1] for file in files]
    level = int(all(names[0].lower() in SPLIT_NAMES for names in folders if names))
    classes = [names[level] if len(names) > level else "" for names in folders]
    return classes if len({*classes} - {""}) > 1 else [""] * len(files)


class Embedder:
    """Embeds clips by a model, window by window as `predict` reads them.

    Args:
        model: One with a method `embeddings`, which gives its logits too; it is put into eval mode.
        on_missing_audio: What to do with a clip without sound: "error" or "silence".
        on_damage: What to do with a clip that is cut short: "error" or "pad".

    Raises:
        AvzooError: If the model has no embeddings.
    """

    def __init__(
        self,
        model: AVModule,
        *,
        on_missing_audio: Literal["error", "silence"] = "error",
        on_damage: Literal["error", "pad"] = "error",
    ) -> None:
        if not hasattr(model, "embeddings"):
            able = ", ".join(name for name, kind in MODELS.items() if hasattr(kind, "embeddings"))
            raise AvzooError(f"{model.name} is a {type(model).__name__}, which has no embeddings; these have: {able}")
        self.model = model.eval()
        self.audio, self.visual = "audio" in model.modalities, "visual" in model.modalities
        self.media: dict[str, Any] = {"on_missing_audio": on_missing_audio, "on_damage": on_damage}

    @torch.no_grad()
    def __call__(self, source: Source) -> Table:
        """The rows of one clip.

        Raises:
            DataNotFoundError: If a file is not there.
            MediaError: If it cannot be read.
        """
        p = self.model.preprocess
        file, sound = source.video, source.audio
        if sound is not None and not self.visual:
            file, sound = sound, None  # the video need not be there
        duration = probe(file).duration
        parts: dict[str, list[NDArray[Any]]] = {}
        for start, new in p.windows(duration):
            clip = read_window(
                file, p, start=start, audio_path=sound, audio=self.audio, visual=self.visual, **self.media
            )
            read = self.model.preprocessor(clip, audio=self.audio, visual=self.visual)
            sample = [None if x is None else x[None] for x in read]
            found = self.model.embeddings(*sample)  # type: ignore[operator]
            found["probabilities"] = found.pop("logits").softmax(-1)
            for name, value in found.items():
                parts.setdefault(name, []).append(value[0, new].float().cpu().numpy())
        vectors = {name: np.concatenate(rows) for name, rows in parts.items()}
        probabilities = vectors.pop("probabilities")
        answer = np.array(self.model.classes)[probabilities.argmax(1)]
        count = len(answer)
        starts = np.arange(count) * p.segment_seconds
        return {
            "id": np.full(count, source.id),
            "path": np.full(count, file.as_posix()),
            "start": starts,
            "end": np.minimum(starts + p.segment_seconds, max(duration, p.segment_seconds)),
            "label": np.full(count, source.label) if source.label else answer,
            "label_source": np.full(count, source.label_source),
            "answer": answer,
            "probability": probabilities.max(1),
            **vectors,
        }


def join(tables: Sequence[Table]) -> Table:
    """The rows of all tables, in one."""
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def check_out(out: Path) -> None:
    """Whether a table can be written there, before hours are spent.

    Raises:
        AvzooError: If the name ends in neither .npz nor .parquet, or pyarrow is missing for the latter.
    """
    if out.suffix.lower() not in FORMATS:
        raise AvzooError(f"{out}: a table's name ends in {' or '.join(FORMATS)}")
    if out.suffix.lower() == ".parquet":
        _pyarrow()


def write(table: Table, out: Path, model: str) -> None:
    """Write a table as `.npz` (an array a column) or `.parquet` (vectors as lists), with the model's name.

    The file appears when it is complete.

    Raises:
        AvzooError: As `check_out`.
    """
    check_out(out)
    with whole(out) as unfinished:
        if out.suffix.lower() == ".npz":
            with unfinished.open("wb") as file:
                np.savez(file, model=np.array(model), **table)  # type: ignore[arg-type]
            return
        arrow, parquet = _pyarrow()
        columns = {
            name: arrow.array(column)
            if column.ndim == 1
            else arrow.FixedSizeListArray.from_arrays(arrow.array(column.reshape(-1)), column.shape[1])
            for name, column in table.items()
        }
        parquet.write_table(arrow.table(columns).replace_schema_metadata({"model": model}), unfinished)


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise AvzooError("a .parquet file needs pyarrow: pip install 'avzoo[embed]', or write an .npz") from error
    return pyarrow, pyarrow.parquet


def check_tsne() -> None:
    """Whether a map can be computed.

    Raises:
        AvzooError: If scikit-learn is missing.
    """
    try:
        import sklearn.manifold  # noqa: F401
        import threadpoolctl  # noqa: F401 - it comes with scikit-learn
    except ImportError as error:
        raise AvzooError("a map needs scikit-learn: pip install 'avzoo[embed]'") from error


def perplexity(rows: int) -> float:
    """Of a map: scikit-learn's 30, or a third of the other rows where there are fewer than 91.

    >>> perplexity(840), perplexity(31)
    (30.0, 10.0)
    """
    return min(30.0, (rows - 1) / 3)


def tsne(vectors: NDArray[np.float32], *, seed: int = 0) -> NDArray[np.float32]:
    """A map of vectors by t-SNE (van der Maaten and Hinton, 2008), `[rows, n]` to `[rows, 2]`.

    scikit-learn's, which begins with the first two principal components; the same vectors and seed give the same map.

    Raises:
        AvzooError: If there are fewer than 4 rows or a value is not finite, or scikit-learn is missing.
    """
    check_tsne()
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if len(vectors) < FEWEST or not np.isfinite(vectors).all():
        raise AvzooError(f"a map needs {FEWEST} or more rows of finite values, got {list(vectors.shape)}")
    if not np.ptp(vectors, axis=0).any():  # all alike (a modality that is missing): there is nothing to spread
        return np.zeros((len(vectors), 2), np.float32)
    method = TSNE(init="pca", perplexity=perplexity(len(vectors)), random_state=seed)
    with threadpool_limits(1):  # many wait for one another in each of its small steps: on busy cores, without end
        placed: NDArray[np.float32] = method.fit_transform(vectors).astype(np.float32)
    return placed
