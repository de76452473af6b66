"""`avzoo finetune NAME --data DIR|TABLE`: train a model on one's own clips, from one that is trained."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        f"{parser.description}\n\n"
        "All but the head is taken over, whatever the classes are. DIR is a folder per class, a table a CSV or\n"
        "Parquet file with the columns path, label[, start, end, split, group]; `avzoo check` looks through them.\n"
        "For a model of events, a folder or label `background` holds what is none of the classes.\n"
        "Interrupted (exit status 130), stopped by a signal (75) or killed, the same command goes on."
    )
    parser.add_argument("model", help="a name of `avzoo list`, hf:owner/repo@commit, or a bundle's folder")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR|TABLE", help="the clips")
    parser.add_argument(
        "--freeze",
        choices=["none", "backbone", "encoders"],
        default="backbone",
        help="what does not train: the image encoder, if the model has its own (default), or all single-modality parts",
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=40,
        help="at most (default 40); one is all clips once, or so often that it has ten steps",
    )
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate of the head (default 0.003)")
    parser.add_argument("--lr-rest", type=float, help="of all else (default by model: as --lr, or a tenth)")
    parser.add_argument("--patience", type=int, default=10, help="epochs without progress until the end (default 10)")
    parser.add_argument(
        "--balance",
        choices=["none", "weights", "sampler"],
        default="none",
        help="classes of different size: weigh the rare ones up, or draw all equally often (default none)",
    )
    parser.add_argument("--batch-size", type=int, help="windows, seconds or pairs a step (default by model)")
    parser.add_argument(
        "--val-fraction",
        type=float,
        default=0.2,
        help="share of the training clips held back for validation, where none is declared (default 0.2)",
    )
    parser.add_argument(
        "--out", type=Path, help="the bundle it becomes; replaces one (default a new folder in finetuned/)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps")
    parser.add_argument("--workers", type=int, help="processes that extract features (default one per core)")
    parser.add_argument("--on-missing-audio", choices=["error", "silence"], default="error", help="default: error")
    parser.add_argument("--on-damage", choices=["error", "pad"], default="error", help="default: error")
    parser.add_argument("--on-missing", choices=["error", "skip"], default="error", help="of files; default: error")
    parser.add_argument("--seed", type=int, default=0, help="of the head's first weights and of the order (default 0)")


def run(options: argparse.Namespace) -> None:
    """Train, write the bundle, and say what to do with it."""
    from avzoo.errors import AvzooError, as_flags

    chosen = contextlib.nullcontext(options.out) if options.out else _new_folder(options.model, options.data)
    try:
        with chosen as out:
            _train(options, out)
    except AvzooError as error:
        raise AvzooError(as_flags(str(error), without=("--audio", "--modality visual"))) from error
    except KeyboardInterrupt:
        print("avzoo: interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)
    given = str(out) if out.is_absolute() else f"./{out.as_posix()}"
    print(f"ask it:  avzoo predict clip.mp4 --model '{given}'")
    print(f"or in the browser:  avzoo app --model '{given}'")
    print(f"again, or with other options:  avzoo fit --config '{given}/recipe.yaml'")


def _train(options: argparse.Namespace, out: Path) -> None:
    from avzoo.finetuning import finetune

    finetune(
        options.model,
        options.data,
        freeze=options.freeze,
        epochs=options.epochs,
        lr=options.lr,
        lr_rest=options.lr_rest,
        patience=options.patience,
        balance=options.balance,
        batch_size=options.batch_size,
        val_fraction=options.val_fraction,
        out=out,
        device=options.device,
        workers=options.workers,
        on_missing_audio=options.on_missing_audio,
        on_damage=options.on_damage,
        on_missing=options.on_missing,
        seed=options.seed,
    )


@contextlib.contextmanager
def _new_folder(model: str, data: Path) -> Iterator[Path]:
    """A folder that is not there yet, called after both; no other process gets it in the meantime."""
    from avzoo.train.runs import Run

    name = re.sub(r"[^\w.-]+", "-", f"{Path(model).name}-{data.resolve().stem}")
    for number in itertools.count(1):
        folder = Path("finetuned", name if number == 1 else f"{name}-{number}")
        lock = Run(folder.with_name(f".{folder.name}"))
        lock.folder.mkdir(parents=True, exist_ok=True)
        if lock.acquire() and not folder.exists():
            break
        lock.release()
    try:
        yield folder
    finally:
        lock.release()
        with contextlib.suppress(OSError):  # something is in it, as it should be
            folder.parent.rmdir()
