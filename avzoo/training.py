"""`avzoo fit | validate | test | extract | shard | lr`: LightningCLI, one recipe, one `preprocess`, one label order.

A recipe names classes instead of class paths (`model: {name: AVSDN, hidden_dim: 64}`), states the signal path once,
at the top, and takes the label order from the data. Whatever Lightning's users know works as they know it:
overrides, `--print_config`, `--trainer.logger WandbLogger`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace, set_loader
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from avzoo import bundle, plot
from avzoo.commands import TRAINING
from avzoo.data import ave, clips, places365, sharded, sounds_pool, synthetic, tau  # noqa: F401 - so that recipes can name them
from avzoo.data.base import AVDataModule
from avzoo.data.scenes import SceneDataModule
from avzoo.data.windows import WindowDataModule
from avzoo.errors import AvzooError, DataNotFoundError
from avzoo.init_from import find_parent, take_over
from avzoo.models import AVModule, distillation, places  # noqa: F401
from avzoo.preprocess import Preprocess
from avzoo.train import rate, report, slurm, smoke, tracking
from avzoo.train.best import Best, CheckMonitor, KeptBest
from avzoo.train.checkpoint import CheckpointsOrBundles, check_kind
from avzoo.train.finetune import FineTune  # noqa: F401 - so that recipes can name it
from avzoo.train.noise import NOISE
from avzoo.train.options import add_options
from avzoo.train.parser import HelpFormatter, RecipeParser, about, refusal
from avzoo.train.progress import Progress
from avzoo.train.recipe import complete, read_recipe
from avzoo.train.resume import Resumable
from avzoo.train.runs import Run, start, unfinished
from avzoo.train.share import WholeBatch
from avzoo.train.signals import Stopped, keeps_keyboard_interrupt
from avzoo.train.trainer import AvzooTrainer


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

    run: Run | None = None  # of `fit`, as the two below
    best: Best
    record: tracking.Record

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the top-level keys and the links."""
        add_options(parser)
        parser.link_arguments("preprocess", "model.init_args.preprocess", compute_fn=_plain)
        parser.link_arguments("preprocess", "data.init_args.preprocess", compute_fn=_plain)
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=_seed)
        parser.link_arguments("data.classes", "model.init_args.classes", apply_on="instantiate")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's own, less `predict` (which is `avzoo predict`), plus `extract`, `shard` and `lr`."""
        known = LightningCLI.subcommands()
        ours = {key: {"model", "datamodule"} for key in ("extract", "shard", "lr")}
        return {key: known[key] for key in ("fit", "validate", "test")} | ours

    def _parse_ckpt_path(self) -> None:
        """Let Lightning take the model's options from a checkpoint, if it is of the recipe's kind."""
        command = self.config["subcommand"]
        config = self.config[command]
        given = config.get("ckpt_path")
        if given:
            if command == "fit" and Path(given).is_dir():
                raise AvzooError(f"{given} has weights alone: --init_from starts from them, --ckpt_path from a .ckpt")
            check_kind(Path(given), config["model"]["class_path"], Preprocess.of(_plain(config["preprocess"])))
        elif command in ("validate", "test"):
            raise AvzooError(f"{command}: --ckpt_path FILE is missing: the figures would be those of random weights")
        super()._parse_ckpt_path()

    def instantiate_classes(self) -> None:
        """Quote what a class refuses without the paragraph that jsonargparse makes of it."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            said = refusal(error, self.config[self.subcommand])
            if said is None:
                raise
            raise said from None

    def after_instantiate_classes(self) -> None:
        """Say what does not go together before features are extracted."""
        if isinstance(self.model, AVModule):
            self.model.check_data(self.datamodule)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer whose checkpoints are whole, and that leaves the sharing of batches to the data that can."""
        config = self.config_init[self.subcommand]
        options, limit = config["trainer"], config["limit"]
        kwargs |= smoke.limited(limit)
        if limit and isinstance(self.datamodule, AVDataModule):
            smoke.leave_few(self.datamodule, limit)
        if options["logger"] is None:
            kwargs["logger"] = False  # `before_fit` gives it one, in the run's folder
        whole, given = WholeBatch(), list(options["callbacks"] or [])
        if self.subcommand == "lr":
            kwargs |= rate.OPTIONS
            given = [callback for callback in given if not isinstance(callback, Checkpoint | EarlyStopping)]
        elif options["enable_progress_bar"] is not False and not any(isinstance(c, ProgressBar) for c in given):
            given.append(Progress(config["monitor"]))
        kwargs["callbacks"] = [*given, whole]
        kwargs["plugins"] = [*_listed(options["plugins"]), CheckpointsOrBundles(), whole, *slurm.environments()]
        if isinstance(self.datamodule, AVDataModule | places365.Places365):
            kwargs["use_distributed_sampler"] = False
        if options["default_root_dir"] is None:  # where Lightning, under Slurm, would go on from other runs' hpc_ckpt_*
            kwargs["default_root_dir"] = "runs"
        try:
            return super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, TypeError, ValueError) as error:
            raise AvzooError(f"trainer: {' '.join(str(error).split())}") from error

    def before_fit(self) -> None:
        """Go on with the newest run of this recipe that is not finished, or start one in a folder of its own."""
        config = self.config_init[self.subcommand]
        if config["track"] != "csv" and config["trainer"]["logger"]:
            raise AvzooError(f"--track {config['track']} and --trainer.logger both name a logger: give one of them")
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
        facts = tracking.facts(run, recipe.text())
        bar = self.trainer.progress_bar_callback
        if isinstance(bar, Progress):
            bar.run = f"{facts['recipe']}/{facts['run']}"
        self.best, self.record = Best(run, config["monitor"]), tracking.Record(facts)
        kept = [KeptBest(run, config["monitor"], config["keep_best"])] if config["keep_best"] > 1 else []
        own = [callback for callback in callbacks if not isinstance(callback, Checkpoint)]
        given = [callback for callback in config["trainer"]["callbacks"] or [] if isinstance(callback, Checkpoint)]
        callbacks[:] = [
            CheckMonitor(),
            *own,
            self.record,
            *given,
            self.best,
            *kept,
            Resumable(run, config["save_every"]),
        ]

    def before_lr(self) -> None:
        """Start where a training would."""
        self._init_from()

    def _choose_run(self, recipe: str) -> Run:
        """The first process decides and tells the others.

        Those that Lightning starts are told by the environment, those of `srun` or `torchrun` over the network.
        """
        strategy, first = self.trainer.strategy, self.trainer.is_global_zero
        told = "" if first else os.environ.get("AVZOO_RUN", "")
        environment = getattr(strategy, "cluster_environment", None)  # None for one process
        meet = environment is not None and environment.creates_processes_externally and not told
        if meet:
            strategy.setup_environment()  # Lightning does so a moment later, which then changes nothing
        run = None
        try:
            if first:
                run = self._decide_run(recipe)
                self._open_loggers(run)
                told = os.pathsep.join([str(run.folder), str(run.checkpoint or "")])
        finally:  # also where it fails: the others wait for an answer
            if meet:
                told = strategy.broadcast(told)
            elif first:
                os.environ["AVZOO_RUN"] = told
        if run is None:
            folder, _, checkpoint = told.partition(os.pathsep)
            if not folder:
                raise AvzooError("there is no run: the first process says why, if all were started by srun or torchrun")
            run = Run(Path(folder), Path(checkpoint) if checkpoint else None)
            if run.checkpoint is None:
                self._init_from()
            self._open_loggers(run)
        return run

    def _open_loggers(self, run: Run) -> None:
        track = self.config_init[self.subcommand]["track"]
        with contextlib.ExitStack() as undo:
            undo.callback(run.release)
            own = tracking.open_loggers(track, run, first=self.trainer.is_global_zero)
            undo.pop_all()
        self.trainer.loggers = [*own, *self.trainer.loggers]

    def _decide_run(self, recipe: str) -> Run:
        parent = Path("runs", self._recipe_name())
        run = unfinished(parent, recipe) if self.config_init[self.subcommand]["resume"] else None
        if run is None or run.checkpoint is None:
            self._init_from()
        return run or start(parent, recipe)

    def _recipe_name(self) -> str:
        config = self.config[self.subcommand]
        name = Path(str(config["config"][0])).stem if config.get("config") else "run"
        return f"{name}-smoke" if config["limit"] else name  # `init_from` begins with what `name` left

    def _init_from(self) -> None:
        """Read what `init_from` names, before hours are spent; a resumed run has it already."""
        config = self.config_init[self.subcommand]
        if not config["init_from"] or config["ckpt_path"]:
            return
        model, parents = self.model, [find_parent(name) for name in config["init_from"]]
        if not isinstance(model, AVModule):
            raise AvzooError(f"init_from: {type(model).__name__} takes no weights of others")

        def begin() -> None:
            taken = take_over(model, parents)
            if self.trainer.is_global_zero:
                print(f"init_from: {taken}")

        model.take_over = begin  # type: ignore[method-assign]

    def after_fit(self) -> None:
        """Conclude in the first process; `srun` ends all that are left a minute after the first end, so they wait."""
        if self.trainer.is_global_zero:
            try:
                self._conclude()
            except Stopped as stopped:  # a signal; in `Trainer.fit` the callback says so
                stopped.say()
                raise
        self.trainer.strategy.barrier()

    def _conclude(self) -> None:
        """Say where the result is, and leave the best model as a bundle beside it."""
        run = self.run
        if run is None:  # fast_dev_run leaves nothing
            return
        best, counts = self.best, None
        if best.best_model_score is not None:
            where = Path(os.path.relpath(best.best_model_path))
            print(f"best {best.monitor} {float(best.best_model_score):.4f}: {where}")
            if isinstance(self.model, AVModule):
                model = bundle.read_training_checkpoint(where)
                scenes = model.task == "clip" and isinstance(self.datamodule, WindowDataModule | SceneDataModule)
                if scenes and (calibrated := model.calibrate(self.datamodule.whole("val"))):
                    print(calibrated)
                if isinstance(self.datamodule, AVDataModule):
                    counts = report.confusion(model, self.datamodule, self.trainer.strategy.root_device)
                text = (run.folder / "recipe.yaml").read_text(encoding="utf-8")
                print(f"as a bundle: {bundle.write(run.folder / 'bundle', model, recipe=text, half=False)}")
        classes = getattr(self.model, "classes", ())
        picture = report.write_report(run.folder, self.record, str(best.monitor), counts=counts, classes=classes)
        if picture is not None:
            print(f"report: {picture}")
        tracking.finish(self.trainer.loggers)
        if limit := self.config_init[self.subcommand]["limit"]:
            print(f"a smoke run of {limit} batch{'es' * (limit != 1)}: its figures mean nothing")
        run.finish()

    def after_test(self) -> None:
        """Draw the confusion matrix: in the run's folder, here if what was tested is of none."""
        if not isinstance(self.model, AVModule) or self.model.confusion is None:
            return
        counts = self.model.confusion.compute()  # of all processes, so all take part
        if not self.trainer.is_global_zero:
            return
        given = self.config_init[self.subcommand]["ckpt_path"]
        folder = Path(given).parent.parent if given and Path(given).parent.name == "checkpoints" else Path()
        picture = plot.confusion(counts, self.model.classes, folder / "confusion.png")
        print(f"confusion matrix: {picture}")


def _plain(preprocess: Any) -> dict[str, Any]:
    return preprocess.to_dict() if isinstance(preprocess, Preprocess) else dict(vars(preprocess))


def _listed(plugins: Any) -> list[Any]:
    return list(plugins) if isinstance(plugins, list | tuple) else [] if plugins is None else [plugins]


def _seed(seed: Any) -> int:
    return seed if type(seed) is int else 0


def main(arguments: Sequence[str]) -> AvzooCLI:
    """Run one of these commands; the CLI comes back with its trainer, model and data."""
    for name in ("pytorch.utilities.rank_zero", "fabric.utilities.seed", "fabric.utilities.distributed"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    for message in NOISE:
        warnings.filterwarnings("ignore", message)
    set_loader("avzoo", read_recipe)
    sys.argv[1:] = complete(arguments)  # Lightning starts other processes by this command line
    try:
        with keeps_keyboard_interrupt():
            return _run()
    except FileNotFoundError as error:
        raise DataNotFoundError(str(error)) from error
    except MisconfigurationException as error:
        raise AvzooError(" ".join(str(error).split())) from error


def _run() -> AvzooCLI:
    return AvzooCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        trainer_class=AvzooTrainer,
        save_config_callback=ResolvedRecipe,
        parser_class=RecipeParser,
        parser_kwargs={
            "parser_mode": "avzoo",
            "formatter_class": HelpFormatter,
            **{command: about(command, sentence) for command, sentence in TRAINING.items()},
        },
    )
