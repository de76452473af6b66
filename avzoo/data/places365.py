"""Places365: photographs of 365 scenes (Zhou et al., TPAMI 2018), on which an image backbone learns what scenes are.

```
root/categories_places365.txt          /a/airfield 0                     the label order
root/places365_train_standard.txt      /a/airfield/00000001.jpg 0        1.8 million, below data_large/ or data_256/
root/places365_train_challenge.txt     the same, 8 million
root/places365_val.txt                 Places365_val_00000001.jpg 165    below val_large/ or val_256/
root/train/airfield/*.jpg, root/val/   the "easy" format: a folder a class, apartment_building-outdoor, no lists
```

http://places2.csail.mit.edu; torchvision's names of the folders (data_large_standard, ...) are known too. The test
split has no public labels, so figures are those of validation.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from avzoo.augment import transform
from avzoo.data.loading import EpochSampler, Loader, Share, shares
from avzoo.data.places365_lists import Listing, class_folders, read_categories, read_folders, read_list
from avzoo.errors import AnnotationError, AvzooError, DataNotFoundError, MediaError, check_choice
from avzoo.preprocess import PictureBatch, Preprocess

Format = Literal["large", "256", "easy"]
FORMATS: tuple[Format, ...] = ("large", "256", "easy")


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


class PictureSet(Dataset[tuple[PictureBatch, list[str]]]):
    """Pictures, indexed by a process's share of a batch; with what is wrong with those that are left out."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    def __getitem__(self, share: Share) -> tuple[PictureBatch, list[str]]:
        pictures = [self.pictures[row] for row in share.rows]
        whole = [(picture.image, picture.label) for picture in pictures if picture.image is not None]
        images = torch.stack([image for image, _ in whole]) if whole else torch.empty(0, dtype=torch.uint8)
        labels = torch.tensor([label for _, label in whole])
        return PictureBatch(images, labels, share.weight), [p.problem for p in pictures if p.problem]


class PictureBatches(EpochSampler):
    """Batches of rows: in order and as they are, or shuffled with a view each.

    Args:
        count: How many pictures there are.
        batch_size: Rows a batch; of shuffled ones a last batch that is not full is left out, unless it is the only one.
        seed: Of order and views; None for no shuffling.
    """

    def __init__(self, count: int, batch_size: int, seed: int | None = None) -> None:
        super().__init__(seed or 0)
        self.count, self.batch_size, self.shuffle = count, batch_size, seed is not None

    def __len__(self) -> int:
        return max(1, self.count // self.batch_size) if self.shuffle else -(-self.count // self.batch_size)

    def draw(self, epoch: int) -> Iterator[list[Row]]:
        """The batches of an epoch."""
        order = torch.arange(self.count)
        if self.shuffle:
            order = torch.randperm(self.count, generator=self.generator(epoch))
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            pictures = order[start : start + self.batch_size].tolist()  # a list of all would be larger than the listing
            yield [Row(picture, self._view(epoch, picture) if self.shuffle else 0) for picture in pictures]

    def _view(self, epoch: int, picture: int) -> int:
        digest = hashlib.sha256(f"{self.seed}/{epoch}/{picture}".encode()).digest()
        return 1 + (int.from_bytes(digest[:8], "big") >> 2)


# -- the datamodule --------------------------------------------------------------------------------------------------


class Places365(L.LightningDataModule):
    """Pictures and scenes, decoded in worker processes; a batch is `PictureBatch`.

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
            return class_folders(self.root / "train")
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

    def train_dataloader(self) -> DataLoader[tuple[PictureBatch, list[str]]]:
        """Shuffled and augmented; a last batch that is not full is left out, unless it is the only one."""
        return self._loader("train", self.seed)

    def val_dataloader(self) -> DataLoader[tuple[PictureBatch, list[str]]]:
        """In order, as they are."""
        return self._loader("val")

    def _loader(self, split: str, seed: int | None = None) -> DataLoader[tuple[PictureBatch, list[str]]]:
        pictures = self._pictures[split]
        batches = PictureBatches(len(pictures.listing), self.batch_size, seed)
        return Loader(
            PictureSet(pictures),
            sampler=shares(batches, self.trainer, training=batches.shuffle),
            batch_size=None,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def on_before_batch_transfer(self, batch: tuple[PictureBatch, list[str]], dataloader_idx: int) -> PictureBatch:  # noqa: ARG002
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
