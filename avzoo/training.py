"""`avzoo fit | validate | test | extract`: LightningCLI with one recipe file, one `preprocess`, one label order.

A recipe names classes instead of class paths (`model: {name: AVSDN, hidden_dim: 64}`), states the signal path once,
at the top, and takes the label order from the data. Whatever Lightning's users know works as they know it:
overrides, `--print_config`, `--trainer.logger WandbLogger`.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, set_loader
from jsonargparse.typing import PositiveInt
from lightning import LightningDataModule, LightningModule, Trainer
from lightning import __version__ as lightning_version
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from avzoo import bundle, plot
from avzoo.data import ave, clips, places365, sounds_pool, synthetic, tau  # noqa: F401 - so that recipes can name them
from avzoo.data.base import AVDataModule
from avzoo.data.scenes import SceneDataModule
from avzoo.errors import AvzooError, DataNotFoundError
from avzoo.init_from import find_parent, take_over
from avzoo.models import AVModule, distillation, places  # noqa: F401
from avzoo.parts import Part
from avzoo.preprocess import Preprocess
from avzoo.train.recipe import RecipeParser, complete, read_recipe
from avzoo.train.resume import Resumable, WholeCheckpoints, keep_metrics
from avzoo.train.runs import Run, start, unfinished
from avzoo.train.share import WholeBatch


class AvzooTrainer(Trainer):
    """Lightning's trainer, and `extract`: bring a recipe's features into the cache, nothing else."""

    def extract(
        self,
        model: LightningModule,  # noqa: ARG002 - the CLI hands it over
        datamodule: AVDataModule,
        part: str = "1/1",
    ) -> None:
        """Extract the features of all splits that are not cached yet.

        Args:
            model: Not used.
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
        datamodule.extract(("train", "val", "test"))
        print(f"features are in {datamodule.cache.folders['audio'].parent}")


class ResolvedRecipe(SaveConfigCallback):
    """Knows the recipe as resolved, which goes into the run's own folder, whatever the logger."""

    def text(self) -> str:
        """The recipe with everything that it leaves out."""
        config = self.config.clone()
        resolved = Preprocess.of(_plain(config["preprocess"])).to_dict()
        config["preprocess"] = Namespace(resolved)  # type: ignore[no-untyped-call]
        return str(self.parser.dump(config, skip_none=False))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """It is written as soon as the run has a folder."""


class AvzooCLI(LightningCLI):
    """Wires a recipe: one `preprocess` for model and data, the data's classes for the model, a folder per run."""

    run: Run | None = None  # of `fit`

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
        parser.add_argument(
            "--resume", type=bool, default=True, help="go on with the newest run of this recipe that is not finished"
        )
        parser.add_argument(
            "--save_every", type=PositiveInt, default=1000, help="steps between checkpoints within an epoch"
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
        """A trainer whose checkpoints are whole, and that leaves the sharing of batches to the data that can."""
        options = self.config_init[self.subcommand]["trainer"]
        if options["logger"] is None:
            kwargs["logger"] = False  # `before_fit` gives it one, in the run's folder
        kwargs["callbacks"] = [*(options["callbacks"] or []), WholeBatch()]
        kwargs["plugins"] = [*_listed(options["plugins"]), BundlesToo()]
        if isinstance(self.datamodule, AVDataModule):
            kwargs["use_distributed_sampler"] = False
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Go on with the newest run of this recipe that is not finished, or start one in a folder of its own."""
        config = self.config_init[self.subcommand]
        if config["trainer"]["fast_dev_run"]:
            self._init_from()
            return
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        recipe = next(c for c in callbacks if isinstance(c, ResolvedRecipe))
        self.run = run = self._choose_run(recipe.text())
        if run.checkpoint is not None:
            config["ckpt_path"] = str(run.checkpoint)
            if self.trainer.is_global_zero:
                print(f"going on from {run.checkpoint} (`--resume false` starts anew)")
        if config["trainer"]["logger"] is None:
            name, version = run.folder.parent.name, run.folder.name
            self.trainer.logger = logger = CSVLogger("runs", name=name, version=version)
            if self.trainer.is_global_zero:
                keep_metrics(run, logger)
        monitor = config["monitor"]
        best = ModelCheckpoint(
            run.checkpoints,
            monitor=monitor,
            mode="min" if monitor.endswith("loss") else "max",
            filename="best",
            enable_version_counter=False,
        )
        own = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
        given = [callback for callback in config["trainer"]["callbacks"] or [] if isinstance(callback, Checkpoint)]
        callbacks[:] = [*own, *given, best, Resumable(run, config["save_every"])]

    def _choose_run(self, recipe: str) -> Run:
        """The first process decides; those that it starts are told, others look for themselves, and it is checked."""
        config, first = self.config_init[self.subcommand], self.trainer.is_global_zero
        told = os.environ.get("AVZOO_RUN", "")
        parent = Path("runs", self._recipe_name())
        if not first and told:
            folder, _, checkpoint = told.partition(os.pathsep)
            run: Run | None = Run(Path(folder), Path(checkpoint) if checkpoint else None)
        else:
            run = unfinished(parent, recipe, alive=not first) if config["resume"] else None
        if run is None or run.checkpoint is None:
            self._init_from()
        if run is None:
            run = start(parent, recipe) if first else Run(parent)
        if first:
            os.environ["AVZOO_RUN"] = os.pathsep.join([str(run.folder), str(run.checkpoint or "")])
        return run

    def _recipe_name(self) -> str:
        files = self.config[self.subcommand].get("config") or []
        return Path(str(files[0])).stem if files else "run"

    def _init_from(self) -> None:
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
        if not self.trainer.is_global_zero:
            return
        best = self.trainer.checkpoint_callback
        if isinstance(best, ModelCheckpoint) and best.best_model_score is not None:
            where = Path(os.path.relpath(best.best_model_path))
            print(f"best {best.monitor} {float(best.best_model_score):.4f}: {where}")
            recipe = where.parent.parent / "recipe.yaml"
            if isinstance(self.model, AVModule) and recipe.exists():
                model = bundle.read_training_checkpoint(where)
                if isinstance(self.datamodule, SceneDataModule):
                    calibrated = model.calibrate(self.datamodule.whole("val"))
                    print(calibrated, end="\n" if calibrated else "")
                text = recipe.read_text(encoding="utf-8")
                print(f"as a bundle: {bundle.write(recipe.parent / 'bundle', model, recipe=text, half=False)}")
        if self.run is not None:
            self.run.finish()

    def after_test(self) -> None:
        """Draw the confusion matrix; beside the checkpoint that was tested, if one was given."""
        if not isinstance(self.model, AVModule) or self.model.confusion is None:
            return
        counts = self.model.confusion.compute()  # of all processes, so all take part
        if not self.trainer.is_global_zero:
            return
        given = self.config_init[self.subcommand]["ckpt_path"]
        folder = Path(given) if given and Path(given).is_dir() else Path(given).parent.parent if given else Path()
        picture = plot.confusion(counts, self.model.classes, folder / "confusion.png")
        print(f"confusion matrix: {picture}")


class BundlesToo(WholeCheckpoints):
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


def _plain(preprocess: Any) -> dict[str, Any]:
    return preprocess.to_dict() if isinstance(preprocess, Preprocess) else dict(vars(preprocess))


def _listed(plugins: Any) -> list[Any]:
    return list(plugins) if isinstance(plugins, list | tuple) else [] if plugins is None else [plugins]


def _seed(seed: Any) -> int:
    return seed if type(seed) is int else 0


# What Lightning says that helps nobody who runs a recipe; everything else is shown.
NOISE = (
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # Lightning under torch 2.14
    r".*`srun` command is available.*",  # a cluster's login node; `avzoo submit` writes the job
    r".*`tensorboardX` has been removed.*",  # CSV is the logger here
    r".*in eval mode at the start of training.*",  # what a recipe freezes
    r".*does not have many workers.*",  # a batch is one index into memory
    r".*callbacks used to create the checkpoint need to be provided.*",  # a test keeps no checkpoints
    r".*WeightAveraging state cannot be restored.*",  # averaged weights are what a checkpoint holds
    r".*is not supported by the model summary.*",  # mixed precision: the size it prints is that of 32 bits
    r".*ended before the epoch ended and your dataloader is not resumable.*",  # it finds its place, see Shares
    r".*directory .* exists and is not empty.*",  # a run that goes on
    r".*smaller than the logging interval.*",  # the log has one row an epoch
)


def main(arguments: Sequence[str]) -> AvzooCLI:
    """Run `fit`, `validate`, `test` or `extract`; the CLI comes back with its trainer, model and data."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    set_loader("avzoo", read_recipe)
    sys.argv[1:] = complete(arguments)  # Lightning starts other processes by this command line
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
        save_config_callback=ResolvedRecipe,
        parser_class=RecipeParser,
        parser_kwargs={"parser_mode": "avzoo"},
    )
