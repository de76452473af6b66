"""TAU Urban Audio-Visual Scenes 2021: 12,291 clips of 10 s, ten scenes, twelve cities (Wang et al., ICASSP 2021).

```
root/audio/*.wav (or .ogg, .flac), root/video/*.mp4           the sound, and the silent video of the same name
root/evaluation_setup/fold1_{train,test,evaluate}.csv         lists of clips; `evaluate` is `test` with labels
root/metadata.csv                                             val="metadata": has the split of every clip
```

Zenodo 10.5281/zenodo.4477542. Labels are by name: the code of SECRNNFusion has another order than the official,
alphabetical one. Any dataset of this layout is read alike, whatever its scenes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from avzoo.data.base import Item, Split
from avzoo.data.scenes import SceneDataModule
from avzoo.data.tau_lists import TAU_CLASSES, Line, describe_missing, missing_files, read_list, read_splits
from avzoo.data.tau_splits import check_disjoint, validation_split
from avzoo.errors import AnnotationError, AvzooError, DataNotFoundError

Validation = Literal["locations", "random", "test", "metadata"]


class TAU(SceneDataModule):
    """TAU, or any dataset in its layout.

    Args:
        root: The folder. A clip whose sound and video differ in length by more than 0.5 s is one that is cut short.
        val: What validation is: "locations", a tenth of the training list, no location on both sides; "random", a
            tenth of its clips (the paper of JointScalogramNet); "test", the test list itself (the code of
            SECRNNFusion: its figures are then chosen on the test split); or "metadata", what `metadata.csv` says.
        classes: Label order; default the official one, or for other scenes the alphabetical one of the training list.
        options: As of `SceneDataModule` and `AVDataModule`.

    Raises:
        DataNotFoundError: If a list, or with `on_missing="error"` a clip, is not there.
        AnnotationError: If a list cannot be read.
        AvzooError: If training and test share a location.
    """

    def __init__(
        self,
        root: Path,
        *,
        val: Validation = "locations",
        classes: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if val not in ("locations", "random", "test", "metadata"):
            raise AvzooError(f'val={val!r}: expected "locations", "random", "test" or "metadata"')
        self.root, self.val = Path(root), val
        self._given_classes = classes

    @functools.cached_property
    def classes(self) -> list[str]:
        """The label order."""
        if self._given_classes is not None:
            return list(self._given_classes)
        labels = {line.label for line in self._list("train", None) if line.label is not None}
        return sorted(TAU_CLASSES if labels <= set(TAU_CLASSES) else labels)

    def items(self, split: Split) -> list[Item]:
        """The labelled clips of a split that are on disk, in the list's order."""
        lines = self._splits[split]
        gone = missing_files(lines)
        if gone:
            if self.on_missing == "error":
                raise DataNotFoundError(
                    f"{self.root}, {split}: {describe_missing(gone, len(lines))}; `data.on_missing: skip` goes on"
                    " without them"
                )
            lost = {line.id for line in gone}
            lines = [line for line in lines if line.id not in lost]
        return [
            Item(line.id, line.id, line.video, str(line.label), 0.0, self.preprocess.seconds, line.audio)
            for line in lines
        ]

    def extract(self, splits: Sequence[Split]) -> None:
        """Say what a partial download lacks, then extract what is missing."""
        for split in splits:
            gone = missing_files(self._splits[split])
            if gone and self.on_missing == "skip":
                print(f"{self.root}, {split}: {describe_missing(gone, len(self._splits[split]))}")
        super().extract(splits)

    def _list(self, name: str, classes: Sequence[str] | None) -> list[Line]:
        return read_list(self.root / "evaluation_setup" / f"fold1_{name}.csv", self.root, classes=classes)

    @functools.cached_property
    def _splits(self) -> dict[Split, list[Line]]:
        labelled = (self.root / "evaluation_setup" / "fold1_evaluate.csv").exists()
        train, test = self._list("train", self.classes), self._list("evaluate" if labelled else "test", self.classes)
        for line in (*train, *test):
            if line.label is None:
                raise AnnotationError(
                    f"{line.where}: {line.id} has no label, and its name begins with none of {self.classes}"
                )
        check_disjoint(train, test, ("training", "test"))
        if self.val == "test":
            return {"train": train, "val": test, "test": test}
        if self.val == "metadata":
            split = read_splits(self.root / "metadata.csv")
            val = [line for line in train if split.get(line.id) == "val"]
            train = [line for line in train if split.get(line.id) != "val"]
            if not val:
                raise AnnotationError(f'{self.root / "metadata.csv"}: no clip of the training list has the split "val"')
            check_disjoint(train, val, ("training", "validation"))
            return {"train": train, "val": val, "test": test}
        train, val = validation_split(train, how=self.val, seed=0)  # the same clips whatever the seed of the training
        return {"train": train, "val": val, "test": test}
