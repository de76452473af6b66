"""`avzoo fit | validate | test | extract`: LightningCLI with one recipe file, one `preprocess`, one label order.

A recipe names classes instead of class paths (`model: {name: AVSDN, hidden_dim: 64}`), states the signal path once,
at the top, and takes the label order from the data. Whatever Lightning's users know works as they know it:
overrides, `--print_config`, `--trainer.logger WandbLogger`.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace, set_loader
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from avzoo import bundle, plot
from avzoo.data import ave, sounds_pool, synthetic, tau  # noqa: F401 - importing the classes is what lets recipes name them
from avzoo.data.base import AVDataModule
from avzoo.errors import AvzooError, DataNotFoundError
from avzoo.init_from import find_parent, take_over
from avzoo.models import AVModule, distillation  # noqa: F401
from avzoo.preprocess import Preprocess
from avzoo.registry import asset


def read_recipe(text: str) -> Any:
    """Parse a recipe: `{name: AVSDN, ...}` for model, data and callbacks becomes jsonargparse's class path form."""
    recipe = yaml.safe_load(text)
    if not isinstance(recipe, dict):
        return recipe
    for section in ("model", "data"):
        if section in recipe:
            recipe[section] = _named(recipe[section])
    trainer = recipe.get("trainer")
    if isinstance(trainer, dict) and isinstance(trainer.get("callbacks"), list):
        trainer["callbacks"] = [_named(callback) for callback in trainer["callbacks"]]
    return recipe


def _named(options: Any) -> Any:
    if not (isinstance(options, dict) and "name" in options):
        return options
    init_args = {key: value for key, value in options.items() if key != "name"}
    return {"class_path": options["name"], "init_args": init_args}


class AvzooTrainer(Trainer):
    """Lightning's trainer, and `extract`: bring a recipe's features into the cache, nothing else."""

    def extract(self, model: LightningModule, datamodule: AVDataModule) -> None:  # noqa: ARG002 - the CLI hands it over
        """Extract the features of all splits that are not cached yet.

        Raises:
            MediaError: At the end, naming every clip that could not be read.
        """
        if not isinstance(datamodule, AVDataModule):
            raise AvzooError(f"{type(datamodule).__name__} has no frozen features to extract")
        datamodule.on_missing = "error"  # what to do about broken clips is a question for training
        datamodule.extract(("train", "val", "test"))
        print(f"features are in {datamodule.cache.folders['audio'].parent}")


class RecipeBesideCheckpoints(SaveConfigCallback):
    """Writes the recipe as resolved into the run's own folder, whatever the logger."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:  # noqa: ARG002
        """Write `recipe.yaml` where this run logs."""
        if stage != "fit" or not trainer.is_global_zero or getattr(trainer, "fast_dev_run", False):
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        resolved = Preprocess.of(_plain(self.config["preprocess"])).to_dict()
        self.config["preprocess"] = Namespace(resolved)  # type: ignore[no-untyped-call]
        self.parser.save(self.config, str(folder / "recipe.yaml"), skip_none=False, overwrite=True, multifile=False)


class AvzooCLI(LightningCLI):
    """Wires a recipe: one `preprocess` for model and data, the data's classes for the model, a folder per run."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the top-level keys and the links."""
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
        parser.link_arguments("preprocess", "model.init_args.preprocess", compute_fn=_plain)
        parser.link_arguments("preprocess", "data.init_args.preprocess", compute_fn=_plain)
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=_seed)
        parser.link_arguments("data.classes", "model.init_args.classes", apply_on="instantiate")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's own, less `predict` (which is `avzoo predict`), plus `extract`."""
        known = LightningCLI.subcommands()
        return {key: known[key] for key in ("fit", "validate", "test")} | {"extract": {"model", "datamodule"}}

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer that logs to `runs/<recipe>/version_<n>` and keeps the best and the last checkpoint there."""
        options = self.config_init[self.subcommand]["trainer"]
        fitting = self.subcommand == "fit" and not options["fast_dev_run"]
        if options["logger"] is None:
            kwargs["logger"] = CSVLogger("runs", name=self._recipe_name()) if fitting else False
        if fitting:
            kwargs["callbacks"] = [*(options["callbacks"] or []), self._keep_best()]
        return super().instantiate_trainer(**kwargs)

    def _keep_best(self) -> ModelCheckpoint:
        monitor = self.config_init[self.subcommand]["monitor"]
        return ModelCheckpoint(
            monitor=monitor,
            mode="min" if monitor.endswith("loss") else "max",
            filename="best",
            save_last=True,
            enable_version_counter=False,
        )

    def _recipe_name(self) -> str:
        files = self.config[self.subcommand].get("config") or []
        return Path(str(files[0])).stem if files else "run"

    def before_fit(self) -> None:
        """Read what `init_from` names, before hours are spent; a resumed run has it already."""
        config = self.config_init[self.subcommand]
        if not config["init_from"] or config["ckpt_path"]:
            return
        model, parents = self.model, [find_parent(name) for name in config["init_from"]]
        if not isinstance(model, AVModule):
            raise AvzooError(f"init_from: {type(model).__name__} takes no weights of others")
        model.take_over = lambda: print(f"init_from: {take_over(model, parents)}")  # type: ignore[method-assign]

    def after_fit(self) -> None:
        """Say where the result is, and leave the best model as a bundle beside it."""
        best = self.trainer.checkpoint_callback
        if not (isinstance(best, ModelCheckpoint) and best.best_model_score is not None):
            return
        print(f"best {best.monitor} {float(best.best_model_score):.4f}: {best.best_model_path}")
        if isinstance(self.model, AVModule) and self.trainer.is_global_zero:
            run = Path(best.best_model_path).parent.parent
            model, recipe = bundle.read_training_checkpoint(Path(best.best_model_path)), run / "recipe.yaml"
            if recipe.exists():
                folder = bundle.write(run / "bundle", model, recipe=recipe.read_text(encoding="utf-8"), half=False)
                print(f"as a bundle: {folder}")

    def after_test(self) -> None:
        """Draw the confusion matrix; beside the checkpoint that was tested, if one was given."""
        if not isinstance(self.model, AVModule) or self.model.confusion is None or not self.trainer.is_global_zero:
            return
        given = self.config_init[self.subcommand]["ckpt_path"]
        folder = Path(given).parent.parent if given else Path()
        picture = plot.confusion(self.model.confusion.compute(), self.model.classes, folder / "confusion.png")
        print(f"confusion matrix: {picture}")


def _plain(preprocess: Any) -> dict[str, Any]:
    return preprocess.to_dict() if isinstance(preprocess, Preprocess) else dict(vars(preprocess))


def _seed(seed: Any) -> int:
    return seed if type(seed) is int else 0


def _find_recipes(arguments: Sequence[str]) -> list[str]:
    """Let `--config recipes/NAME.yaml` name the recipe in the package where no such file lies here."""
    found = list(arguments)
    for index, word in enumerate(found[:-1]):
        path = found[index + 1]
        if word == "--config" and not Path(path).exists() and asset(path).exists():
            found[index + 1] = str(asset(path))
    return found


# What Lightning says that helps nobody who runs a recipe; everything else is shown.
NOISE = (
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # Lightning under torch 2.14
    r".*`tensorboardX` has been removed.*",  # CSV is the logger here
    r".*in eval mode at the start of training.*",  # what a recipe freezes
    r".*does not have many workers.*",  # a batch is one index into memory
    r".*callbacks used to create the checkpoint need to be provided.*",  # a test keeps no checkpoints
    r".*WeightAveraging state cannot be restored.*",  # averaged weights are what a checkpoint holds
    r".*is not supported by the model summary.*",  # mixed precision: the size it prints is that of 32 bits
    r".*smaller than the logging interval.*",  # the log has one row an epoch
)


def main(arguments: Sequence[str]) -> AvzooCLI:
    """Run `fit`, `validate`, `test` or `extract`; the CLI comes back with its trainer, model and data."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    set_loader("avzoo", read_recipe)
    sys.argv[1:] = _find_recipes(arguments)  # Lightning starts other processes by this command line
    try:
        return _run()
    except FileNotFoundError as error:
        raise DataNotFoundError(str(error)) from error


def _run() -> AvzooCLI:
    return AvzooCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        trainer_class=AvzooTrainer,
        save_config_callback=RecipeBesideCheckpoints,
        parser_kwargs={"parser_mode": "avzoo"},
    )
