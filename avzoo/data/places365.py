"""Places365: photographs of 365 scenes (Zhou et al., TPAMI 2018), on which an image backbone learns what scenes are.

```
root/categories_places365.txt          /a/airfield 0                     the label order
root/places365_train_standard.txt      /a/airfield/00000001.jpg 0        1.8 million, below data_large/ or data_256/
root/places365_train_challenge.txt     the same, 8 million
root/places365_val.txt                 Places365_val_00000001.jpg 165    below val_large/ or val_256/
root/train/airfield/*.jpg, root/val/   the "easy" format: a folder a class, apartment_building-outdoor, no lists
```

http://places2.csail.mit.edu; torchvision's names of the folders (data_large_standard, ...) are known too. The test
split has no public labels, so figures are those of validation. A list is read line by line and kept as one block of
bytes, which worker processes share: about 80 MB for 1.8 million lines.
"""

from __future__ import annotations

import functools
import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from avzoo.augment import transform
from avzoo.data.base import Loader, Share, shares
from avzoo.errors import AnnotationError, AvzooError, DataNotFoundError, MediaError, check_choice
from avzoo.preprocess import Preprocess

SUFFIXES = (".jpg", ".jpeg", ".png")
Format = Literal["large", "256", "easy"]
FORMATS: tuple[Format, ...] = ("large", "256", "easy")


class Images(NamedTuple):
    """A batch.

    Attributes:
        images: Uint8 `[batch, 3, size, size]`.
        label: Int64 `[batch]`.
        weight: What its loss counts among those of all processes, see `avzoo.preprocess.Batch`.
    """

    images: Tensor
    label: Tensor
    weight: float = 1.0


# -- lists -----------------------------------------------------------------------------------------------------------


class Listing:
    """Millions of (path, label) pairs, held as three flat buffers.

    >>> listing = Listing([("a/airfield/1.jpg", 0), ("b/bar/2.jpg", 7)])
    >>> len(listing), listing[1]
    (2, ('b/bar/2.jpg', 7))
    """

    def __init__(self, rows: Iterable[tuple[str, int]]) -> None:
        paths, ends, labels = bytearray(), array("q", [0]), array("h")
        for path, label in rows:
            paths += path.encode()
            ends.append(len(paths))
            labels.append(label)
        self.paths = np.frombuffer(paths, np.uint8)  # arrays: forked workers share them, no reference count is written
        self.ends, self.labels = np.frombuffer(ends, np.int64), np.frombuffer(labels, np.int16)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[str, int]:
        start, end = self.ends[index], self.ends[index + 1]
        return self.paths[start:end].tobytes().decode(), int(self.labels[index])


def read_categories(path: Path) -> list[str]:
    """The classes of `categories_places365.txt` by number: "airfield", "apartment_building/outdoor", ...

    Raises:
        DataNotFoundError: If there is no such file.
        AnnotationError: If a line cannot be read, or the numbers are not 0, 1, 2, ...; with file and line.
    """
    names: list[str] = []
    for where, name, number in _lines(path):
        short = name[3:] if name[:1] == "/" and name[2:3] == "/" else ""  # /a/airfield: its initial is but a folder
        if not short or number != len(names) or short in names:
            raise AnnotationError(f"{where}: expected a new category like /a/airfield and the number {len(names)}")
        names.append(short)
    return names


def read_list(path: Path, classes: list[str], *, by_folder: bool) -> Iterator[tuple[str, int]]:
    """The files of `places365_train_*.txt` or `places365_val.txt`, and their labels.

    Args:
        path: The list.
        classes: Label order.
        by_folder: Whether each file lies in its category's folder, and is checked to do so.

    Raises:
        DataNotFoundError: If there is no such file.
        AnnotationError: If a line cannot be read, or has a label that is not its folder's; with file and line.
    """
    folders = [f"{name[0]}/{name}" for name in classes]
    for where, name, label in _lines(path):
        file = name.lstrip("/")
        if not 0 <= label < len(classes):
            raise AnnotationError(f"{where}: label {label}, expected 0 to {len(classes) - 1}")
        if ".." in file.split("/"):
            raise AnnotationError(f"{where}: {name} leads out of the dataset")
        if by_folder and file.rpartition("/")[0] != folders[label]:
            raise AnnotationError(f"{where}: {name} has the label {label}, whose folder is {folders[label]}")
        yield file, label


def _lines(path: Path) -> Iterator[tuple[str, str, int]]:
    """`file:line`, name and number of each line that is not blank."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                name, _, label = line.strip().rpartition(" ")
                if name and label.isdecimal():
                    yield f"{path}:{number}", name.rstrip(), int(label)
                elif label:
                    raise AnnotationError(f"{path}:{number}: {line.strip()[:80]!r}, expected a path and a number")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataNotFoundError(f"{path}: there is no such file; it is in filelist_places365-standard.tar") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{path}: not a text file in UTF-8 ({error})") from error


def read_folders(folder: Path, classes: list[str]) -> Iterator[tuple[str, int]]:
    """The pictures of the easy format, class by class.

    Raises:
        AnnotationError: If a folder is none of the classes.
    """
    labels = {name.replace("/", "-"): label for label, name in enumerate(classes)}
    for name in _subfolders(folder):
        if name not in labels:
            raise AnnotationError(
                f"{folder / name}: is none of the {len(classes)} classes ({', '.join(classes[:3])}, ...)"
            )
        with os.scandir(folder / name) as entries:
            for file in sorted(entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES)):
                yield f"{name}/{file}", labels[name]


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


# -- pictures --------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """What is asked of a listing: which picture, and the seed of its view; 0 for the picture as it is."""

    picture: int
    seed: int


class Picture(NamedTuple):
    """One picture, uint8 `[3, size, size]`, or None and what is wrong with it."""

    image: Tensor | None
    label: int
    problem: str


class Pictures(Dataset[Picture]):
    """The files of a listing, decoded and brought to the backbone's size; indexed by `Row`."""

    def __init__(self, folder: Path, listing: Listing, preprocess: Preprocess) -> None:
        self.folder, self.listing = folder, listing
        self.size, self.interpolation = preprocess.size, InterpolationMode(preprocess.interpolation)

    def __getitem__(self, row: Row) -> Picture:
        name, label = self.listing[row.picture]
        try:
            image = read_picture(self.folder / name)
        except MediaError as error:  # said in the main process: a worker's exception carries its whole traceback
            return Picture(None, label, str(error))
        if not row.seed:  # the whole picture, as the signal path resizes frames
            return Picture(F.resize(image, [self.size, self.size], self.interpolation, antialias=True), label, "")
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(row.seed)
            return Picture(transform(self.size, self.size)(image), label, "")


def read_picture(path: Path) -> Tensor:
    """A file as uint8 `[3, height, width]`.

    Raises:
        MediaError: If it is not there, broken or cut short.
    """
    try:
        with Image.open(path) as image:
            pixels: Tensor = F.pil_to_tensor(image.convert("RGB"))
            return pixels
    except FileNotFoundError as error:
        raise MediaError(f"{path}: there is no such file") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow's readers raise
        raise MediaError(f"{path}: cannot be decoded: {error}") from error


class PictureSet(Dataset[tuple[Images, list[str]]]):
    """Pictures, indexed by a process's share of a batch; with what is wrong with those that are left out."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __getitem__(self, share: Share) -> tuple[Images, list[str]]:
        pictures = [self.pictures[row] for row in share.rows]
        whole = [(picture.image, picture.label) for picture in pictures if picture.image is not None]
        images = torch.stack([image for image, _ in whole]) if whole else torch.empty(0, dtype=torch.uint8)
        labels = torch.tensor([label for _, label in whole])
        return Images(images, labels, share.weight), [p.problem for p in pictures if p.problem]


class Rows(Sampler[Row]):
    """All rows: in order and as they are, or shuffled with a view each, both by (seed, epoch) alone."""

    def __init__(self, count: int, seed: int | None = None) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next; Lightning calls it, also when it resumes."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Row]:
        if self.seed is None:
            yield from (Row(index, 0) for index in range(self.count))
            return
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
        for part in torch.split(order, 4096):  # a list of millions of integers would be larger than the listing
            for index in part.tolist():
                digest = hashlib.sha256(f"{self.seed}/{epoch}/{index}".encode()).digest()
                yield Row(index, 1 + (int.from_bytes(digest[:8], "big") >> 2))


class RowBatches(BatchSampler):
    """Rows, a batch at a time."""

    def __init__(self, rows: Rows, batch_size: int, drop_last: bool) -> None:
        super().__init__(rows, batch_size, drop_last)  # type: ignore[arg-type]  # it puts together what there is
        self.rows = rows

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next; Lightning calls it, also when it resumes."""
        self.rows.set_epoch(epoch)


# -- the datamodule --------------------------------------------------------------------------------------------------


class Places365(L.LightningDataModule):
    """Pictures and scenes, decoded in worker processes; a batch is `Images`.

    Training pictures are cropped, flipped and jittered as in `avzoo.augment`, from the file at its full size, anew
    every epoch: the same seed, epoch and picture give the same view. Validation sees whole pictures, resized as the
    signal path resizes frames.

    Args:
        root: The folder.
        preprocess: Its `size` and `interpolation` are used; on the command line the top-level `preprocess` sets them.
        subset: The training list: "standard" or "challenge".
        images: Which files are read: "large" (shorter side 512), "256" (256 x 256) or "easy"; None takes the first of
            these that is there.
        batch_size: Pictures a step, of all processes together.
        workers: Processes that decode; 0 decodes in this one, None takes one per CPU core.
        on_damage: What to do with a picture that is missing or broken: "error", or "skip" to leave it out of its batch;
            how many were left out is said at the end.
        seed: Of order and views.

    Raises:
        AvzooError: If an option is not one of those above.
    """

    def __init__(
        self,
        root: Path,
        preprocess: Preprocess | Mapping[str, Any] | None = None,
        *,
        subset: Literal["standard", "challenge"] = "standard",
        images: Format | None = None,
        batch_size: int = 256,
        workers: int | None = None,
        on_damage: Literal["error", "skip"] = "error",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_choice("subset", subset, ("standard", "challenge"))
        check_choice("images", images, (None, *FORMATS))
        check_choice("on_damage", on_damage, ("error", "skip"))
        if batch_size < 1:
            raise AvzooError(f"batch_size is {batch_size}, expected 1 or more")
        self.root, self.subset, self.images = Path(root), subset, images
        self.preprocess = Preprocess.of(preprocess)
        self.batch_size, self.on_damage, self.seed = batch_size, on_damage, seed
        self.workers = (os.cpu_count() or 1) if workers is None else workers
        self.problems: dict[str, None] = {}  # of pictures that were left out, in the order of their appearance
        self._pictures: dict[str, Pictures] = {}

    @functools.cached_property
    def classes(self) -> list[str]:
        """The label order: that of `categories_places365.txt`, or for the easy format alone its folders'."""
        categories = self.root / "categories_places365.txt"
        if self._folder("train")[1] == "easy" and not categories.exists():
            return _subfolders(self.root / "train")
        return read_categories(categories)

    def setup(self, stage: str) -> None:
        """Read the lists that a stage needs.

        Raises:
            DataNotFoundError: If a list or the folder of its pictures is not there.
            AnnotationError: If a list cannot be read, or is empty.
        """
        for split in {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ()):
            if split not in self._pictures:
                folder, form = self._folder(split)
                name = "val" if split == "val" else f"train_{self.subset}"
                file = folder if form == "easy" else self.root / f"places365_{name}.txt"
                found = read_folders(folder, self.classes) if form == "easy" else None
                listing = Listing(found or read_list(file, self.classes, by_folder=split == "train"))
                if not listing:
                    raise AnnotationError(f"{file}: lists no picture")
                self._pictures[split] = Pictures(folder, listing, self.preprocess)

    def _folder(self, split: str) -> tuple[Path, Format]:
        """Where a split's pictures are, and in which format."""
        tried: list[str] = []
        for form in FORMATS if self.images is None else (self.images,):
            if form == "easy":
                names = [split]
            else:
                names = [f"data_{form}_{self.subset}", f"data_{form}"] if split == "train" else [f"val_{form}"]
            for name in names:
                if (self.root / name).is_dir():
                    return self.root / name, form
            tried += names
        raise DataNotFoundError(f"{self.root}: has none of the folders {', '.join(tried)}; expected Places365's layout")

    def train_dataloader(self) -> DataLoader[tuple[Images, list[str]]]:
        """Shuffled and augmented; a last batch that is not full is left out, unless it is the only one."""
        pictures = self._pictures["train"]
        rows = Rows(len(pictures.listing), self.seed)
        return self._loader(pictures, rows, drop_last=len(rows) > self.batch_size)

    def val_dataloader(self) -> DataLoader[tuple[Images, list[str]]]:
        """In order, as they are."""
        pictures = self._pictures["val"]
        return self._loader(pictures, Rows(len(pictures.listing)), drop_last=False)

    def _loader(self, pictures: Pictures, rows: Rows, *, drop_last: bool) -> DataLoader[tuple[Images, list[str]]]:
        batches = RowBatches(rows, self.batch_size, drop_last)
        return Loader(
            PictureSet(pictures),
            sampler=shares(batches, self.trainer, training=rows.seed is not None),
            batch_size=None,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def on_before_batch_transfer(self, batch: tuple[Images, list[str]], dataloader_idx: int) -> Images:  # noqa: ARG002
        """Stop at what could not be read, or count it.

        Raises:
            MediaError: If a picture could not be read, unless `on_damage` is "skip" and the batch has others.
        """
        pictures, problems = batch
        if problems and self.on_damage == "error":
            raise MediaError(f"{problems[0]}; data.on_damage: skip leaves such pictures out")
        if not len(pictures.images):
            raise MediaError(f"none of a batch of {len(problems)} pictures could be read: {problems[0]}")
        self.problems.update(dict.fromkeys(problems))
        return pictures

    def teardown(self, stage: str) -> None:  # noqa: ARG002 - Lightning's
        """Say what was left out."""
        if self.problems:
            shown = "".join(f"\n  {problem}" for problem in list(self.problems)[:10])
            print(f"{len(self.problems)} pictures were left out (on_damage: skip), the first of them:{shown}")
