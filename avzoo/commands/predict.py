"""`avzoo predict VIDEO...`: say what happens in videos, and when."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avzoo.models import AVModule
    from avzoo.prediction import Prediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Examples:\n"
        "  avzoo predict clip.mp4 --plot clip.png\n"
        "  avzoo predict clips --model secrnn-scenemix --json > answers.jsonl\n\n"
        "As a job array of Slurm, whose answers `avzoo merge` joins:\n"
        "  sbatch --array=1-16 --wrap 'avzoo predict clips --part slurm --out answers'\n"
        "  avzoo merge answers clips --out answers.jsonl\n\n"
        "Exit status: 0 if every video is answered; 1 if any failed: the others are\n"
        'answered all the same, and stderr or "error" in the JSON object says why. With\n'
        "--out the same command tries them again. Slurm calls a task that exits with 1\n"
        "failed: let the job that merges wait by --dependency=afterany, not afterok."
    )
    parser.add_argument("video", nargs="+", type=Path, help="files, or folders of them")
    parser.add_argument(
        "--model",
        default="avsdn-avemix",
        help="a name of `avzoo list`, hf:owner/repo@commit, or a folder (default avsdn-avemix)",
    )
    parser.add_argument(
        "--audio",
        type=Path,
        metavar="FILE|DIR",
        help="the sound of a silent video; a folder holds that of many, by name",
    )
    parser.add_argument(
        "--modality",
        choices=["both", "audio", "visual"],
        default="both",
        help="go by the sound or the pictures alone (default both)",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="say also why: what the model says by sound or picture alone, with the sound muted, with the picture"
        " frozen; --plot then shows where it looked",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a video, each on a line")
    parser.add_argument(
        "--plot", type=Path, metavar="OUT.png", help="draw frames, sound and answers; of many videos, into a folder"
    )
    parser.add_argument(
        "--submission",
        type=Path,
        metavar="OUT.csv",
        help="write the answers to scenes as the DCASE 2021 task 1B challenge wants",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write the JSON objects there; if killed, the same command goes on"
    )
    parser.add_argument(
        "--part",
        metavar="i/n",
        help="with --out: answer part i (from 1) of n of the files; `slurm`: the part of this task of a job array",
    )
    parser.add_argument("--device", default="cpu", help="where the model runs: cpu (default), cuda, cuda:1, mps")
    parser.add_argument("--top-k", type=int, default=5, metavar="K", help="labels kept per segment (default 5)")
    parser.add_argument(
        "--on-missing-audio",
        choices=["error", "silence"],
        default="error",
        help="a video without sound fails (default), or is read with silence",
    )
    parser.add_argument(
        "--on-damage",
        choices=["error", "pad"],
        default="error",
        help="a damaged file fails (default), or is answered by what it still holds",
    )


def run(options: argparse.Namespace) -> None:
    """Predict all; exit with 1 if any file failed, after the others are done."""
    from tqdm import tqdm

    from avzoo import hub, inference, plot, registry
    from avzoo.errors import AvzooError, as_flags
    from avzoo.explaining import Explanation
    from avzoo.parts import Answers, Part, as_json

    if options.part is not None and not options.out:
        raise AvzooError("--part needs --out FOLDER for its answers (`avzoo merge` joins them)")
    if options.out and (options.submission or options.json):
        raise AvzooError("--out writes JSON objects to a folder: leave --json and --submission out")
    part = Part.parse("1/1" if options.part is None else options.part)
    files = [file for file in inference.find_videos(options.video, options.modality) if part.has(file.as_posix())]
    pictures = _pictures(files, options.plot)
    model = hub.load_ref(registry.parse_ref(options.model, paths=True), device=options.device)
    kept = Answers(options.out, part, model.name) if options.out else None
    if kept:
        left = [row for row in zip(files, pictures, strict=True) if str(row[0]) not in kept.done]
        files, pictures = [file for file, _ in left], [picture for _, picture in left]
    asked = {"top_k": options.top_k, "audio": options.audio, "modality": options.modality}
    asked |= {"on_missing_audio": options.on_missing_audio, "on_damage": options.on_damage}
    answers = _explained(files, model, asked) if options.explain else inference.predict(files, model, **asked)
    failed = unanswered = 0
    rows: list[tuple[str, str, dict[str, float]]] = []
    for answer, picture in zip(
        tqdm(answers, total=len(files), unit="video", disable=None if len(files) > 1 else True), pictures, strict=True
    ):
        if answer.error:
            failed, unanswered = failed + 1, unanswered + 1
            answer = replace(answer, error=as_flags(answer.error))
        if options.submission and answer.clip is not None:
            name, scores = answer.video.stem, answer.probabilities.mean(0).tolist()
            rows.append((f"audio/{name}.wav", f"video/{name}.mp4", dict(zip(answer.classes, scores, strict=True))))
        if kept:
            kept.write(answer.to_dict())
        if options.json:
            tqdm.write(as_json(answer.to_dict()))
        elif answer.error:
            tqdm.write(f"avzoo: {answer.error}", file=sys.stderr)
        elif not kept:
            why = answer.why() if isinstance(answer, Explanation) else []
            tqdm.write("\n".join([plot.timeline_text(answer), *why]))
        if picture is None or answer.error:
            continue
        try:
            answer.plot(picture)
        except (AvzooError, OSError) as error:
            failed += 1
            tqdm.write(f"avzoo: {error}", file=sys.stderr)
        else:
            tqdm.write(f"  {picture}", file=sys.stderr if options.json else sys.stdout)
    if kept:
        kept.finish()
        counts = f"{len(files) - unanswered} answered, {unanswered} failed, {len(kept.done)} from before"
        print(f"{kept.path}: {counts}", file=sys.stderr)
    if options.submission and not failed:
        from avzoo.data.tau_lists import write_submission

        print(f"submission: {write_submission(options.submission, rows)}", file=sys.stderr)
    if failed:
        if len(files) > 1 and not kept:
            print(f"avzoo: {failed} of {len(files)} failed", file=sys.stderr)
        sys.exit(1)


def _explained(files: list[Path], model: AVModule, asked: dict[str, Any]) -> Iterator[Prediction]:
    from avzoo.errors import AvzooError
    from avzoo.explaining import explain
    from avzoo.inference import failed

    for file in files:
        try:
            yield explain(file, model, **asked)
        except (AvzooError, OSError) as error:
            yield failed(file, model, error)


def _pictures(files: list[Path], out: Path | None) -> list[Path | None]:
    """The picture of each file: `out` itself for one, different names in a folder for many."""
    from avzoo.errors import AvzooError
    from avzoo.plot import FORMATS, check_picture

    if out is None:
        return [None] * len(files)
    if len(files) == 1 and not out.is_dir():
        check_picture(out)
        return [out]
    if out.suffix.lower() in FORMATS:
        raise AvzooError(f"--plot {out}: {len(files)} videos were given, so name a folder")
    names: list[Path | None] = []
    for file in files:
        name = out / f"{file.stem}.png"
        for number in range(2, len(files) + 1):
            if name not in names:
                break
            name = out / f"{file.stem}-{number}.png"
        names.append(name)
    return names
