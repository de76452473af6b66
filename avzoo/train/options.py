"""The top-level options of `avzoo fit` and its kin: what belongs to a run and to neither model, data nor trainer."""

from __future__ import annotations

from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser

from avzoo.preprocess import Preprocess
from avzoo.train.tracking import Track


def add_options(parser: LightningArgumentParser) -> None:
    """Declare them; what each does is where it is read, in `avzoo.training`."""
    parser.add_argument("--preprocess", type=Preprocess, help="the numbers of the signal path")
    parser.add_argument(
        "--monitor", type=str, default="val_loss", help="what the best checkpoint is chosen by, on validation"
    )
    parser.add_argument(
        "--init_from",
        type=list[str] | None,
        default=None,
        help="models that it starts from: names, recipes trained here, bundles' folders or .ckpt files",
    )
    parser.add_argument(
        "--resume", type=bool, default=True, help="go on with the newest run of this recipe that is not finished"
    )
    parser.add_argument(
        "--save_every", type=PositiveInt, default=1000, help="steps between checkpoints within an epoch"
    )
    parser.add_argument(
        "--track", type=Track, default="csv", help="where to log beside metrics.csv, in the run's folder"
    )
    parser.add_argument(
        "--keep_best", type=PositiveInt, default=1, help="how many of the best checkpoints; best.ckpt is the best"
    )
    parser.add_argument(
        "--limit",
        type=PositiveInt | None,
        default=None,
        help="a smoke run: one epoch of so many batches of each split, the features of no others",
    )
    parser.set_defaults({"trainer.enable_model_summary": False})  # `Progress` has a line
