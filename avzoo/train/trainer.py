"""The trainer behind the command line: Lightning's, and what a recipe is good for besides training."""

from __future__ import annotations

from pathlib import Path

from jsonargparse.typing import PositiveInt
from lightning import LightningDataModule, LightningModule, Trainer

from avzoo.data.base import SPLITS, AVDataModule
from avzoo.data.packing import Content, pack
from avzoo.errors import AvzooError
from avzoo.parts import Part
from avzoo.train import rate


class AvzooTrainer(Trainer):
    """Lightning's trainer, and what else a recipe is good for: its features, shards of its data, a learning rate."""

    def extract(
        self,
        model: LightningModule,  # noqa: ARG002 - the CLI hands it over
        datamodule: AVDataModule,
        part: str = "1/1",
    ) -> None:
        """Extract the features of all splits that are not cached yet.

        Args:
            model: The recipe's model, which this does not need.
            datamodule: Whose clips.
            part: One of n parts of the clips, as i/n, for a job array on a shared cache; "slurm" is that of the array's
                task. Without it, whatever the parts left is extracted.

        Raises:
            AvzooError: If the data have no features, or it is no part.
            MediaError: At the end, naming every clip that could not be read.
        """
        if not isinstance(datamodule, AVDataModule):
            raise AvzooError(f"{type(datamodule).__name__} has no frozen features to extract")
        datamodule.part = Part.parse(part)
        datamodule.on_missing = "error"  # what to do about broken clips is a question for training
        datamodule.extract(SPLITS)
        print(f"features are in {datamodule.cache.folders['audio'].parent}")

    def shard(
        self,
        model: LightningModule,  # noqa: ARG002 - the CLI hands it over
        datamodule: AVDataModule,
        out: Path,
        content: Content = "features",
        megabytes: PositiveInt = 256,
    ) -> None:
        """Pack all splits into tar shards, see docs/shards.md; a killed pack goes on, a finished one is left alone.

        Args:
            model: The recipe's model, which this does not need.
            datamodule: Whose clips.
            out: The folder of the shards.
            content: clips (the files as they are), frames (what the recipe looks at, decoded) or features.
            megabytes: After so many a shard ends.

        Raises:
            AvzooError: If the data cannot be packed, or the folder holds other shards.
            MediaError: At the end, naming every clip that could not be read, unless `data.on_missing` is skip.
        """
        if not isinstance(datamodule, AVDataModule):
            raise AvzooError(f"{type(datamodule).__name__} has no clips of scenes or events to pack")
        broken = pack(datamodule, out, content=content, megabytes=megabytes)
        datamodule.report(broken, sum(len(datamodule.items(split)) for split in datamodule.available))
        print(f"train from them:  avzoo fit ... --data Sharded --data.root {out}")

    def lr(self, model: LightningModule, datamodule: LightningDataModule) -> None:
        """Suggest a learning rate, and draw what it was found by.

        Raises:
            AvzooError: If there is none to suggest.
        """
        rise = rate.Rise()
        self.callbacks.append(rise)  # type: ignore[attr-defined]
        self.fit(model, datamodule=datamodule)
        losses = rate.smooth(rise.losses)
        found = float(f"{rate.suggest(rise.rates, losses):.1g}")
        if self.is_global_zero:
            title = f"{type(model).__name__}: the loss falls fastest at {found:g}"
            print(f"drawn: {rate.draw(rise.rates, losses, Path('lr.png'), suggested=found, title=title)}")
            print(f"a learning rate to begin with: --model.lr {found:g}")
