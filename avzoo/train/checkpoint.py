"""What `--ckpt_path` names: a checkpoint of `avzoo fit` or the folder of a bundle, of the recipe's own kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import __version__ as lightning_version

from avzoo import bundle
from avzoo.errors import AvzooError
from avzoo.preprocess import Preprocess
from avzoo.train.resume import WholeCheckpoints


class CheckpointsOrBundles(WholeCheckpoints):
    """Checkpoints that are whole; to validate and test, the folder of a bundle will do."""

    def load_checkpoint(self, path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        """What Lightning wants to know of a model."""
        if not Path(path).is_dir():
            return super().load_checkpoint(path, *args, **options)
        model = bundle.read(Path(path))
        return {
            "state_dict": model.state_dict(),
            "hyper_parameters": dict(model.hparams),
            "pytorch-lightning_version": lightning_version,
        }


def check_kind(path: Path, model: str, preprocess: Preprocess) -> None:
    """Refuse a checkpoint of another model or signal path: Lightning would take the one and not notice the other.

    Args:
        path: A file or a folder; where there is none, Lightning says so.
        model: The recipe's model, as class path or by name.
        preprocess: The recipe's.

    Raises:
        AvzooError: With the first difference.
        BundleError: If it cannot be read.
    """
    if path.is_dir():
        content = bundle.read_config(path)
        theirs, numbers = content["model"], content["preprocess"]
    elif path.exists():
        content = bundle.load_training_checkpoint(path)
        if "avzoo_model" not in content:  # a model that is no AVModule
            return
        theirs, numbers = content["avzoo_model"], content["hyper_parameters"]["preprocess"]
    else:
        return
    if theirs != (ours := model.rpartition(".")[2]):
        raise AvzooError(f"{path} is a {theirs}, the recipe's model is {ours}: take the recipe that trained it")
    trained = Preprocess.of(numbers).to_dict()
    for key, value in preprocess.to_dict().items():
        if value != trained[key]:
            raise AvzooError(f"{path} was trained with preprocess.{key}={trained[key]!r}, the recipe has {value!r}")
