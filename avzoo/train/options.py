"""The top-level options of `avzoo fit` and its kin: what belongs to a run and to neither model, data nor trainer."""

from __future__ import annotations

from jsonargparse.typing import PositiveInt
from lightning.pytorch.cli import LightningArgumentParser

from avzoo.preprocess import Preprocess
from avzoo.train.parser import SectionHelp
from avzoo.train.tracking import Track


def add_options(parser: LightningArgumentParser) -> None:
    """Declare them; what each does is where it is read, in `avzoo.training`."""
    parser.add_argument(
        "--limit",
        type=PositiveInt | None,
        default=None,
        metavar="N",
        help="a smoke run: one epoch of so many batches of each split, the features of no others",
    )
    parser.add_argument("--preprocess", type=Preprocess, help="preprocess, the numbers of the signal path")
    for section in ("preprocess", "trainer"):
        (parser.groups or {})[section].add_argument(
            f"--{section}.help", action=SectionHelp, help="explain these options"
        )
    training = parser.add_argument_group("training (avzoo fit)", name="training")
    training.add_argument(
        "--monitor",
        type=str,
        default="val_loss",
        metavar="NAME",
        help="what the best checkpoint is chosen by: a figure of metrics.csv, on validation",
    )
    training.add_argument(
        "--init_from",
        type=list[str] | None,
        default=None,
        metavar="MODEL|[MODEL,...]",
        help="start from models' weights: names of `avzoo list`, recipes trained here, bundles' folders, .ckpt files",
    )
    training.add_argument(
        "--resume",
        type=bool,
        default=True,
        help="go on with the newest run of this recipe that is not finished; false starts anew",
    )
    training.add_argument(
        "--save_every",
        type=PositiveInt,
        default=1000,
        metavar="STEPS",
        help="steps between checkpoints, beside the one ahead of each validation",
    )
    training.add_argument(
        "--track", type=Track, default="csv", help="where to log beside metrics.csv, in the run's folder"
    )
    training.add_argument(
        "--keep_best",
        type=PositiveInt,
        default=1,
        metavar="N",
        help="how many of the best checkpoints to keep; best.ckpt is the best",
    )
    for action in parser._actions:
        if action.nargs == "?" and action.dest.endswith(".help"):
            action.nargs = None  # of Lightning's base classes there is nothing to explain
    parser.set_defaults({"trainer.enable_model_summary": False})  # `Progress` has a line
