"""`avzoo embed PATH... --model NAME`: what a model makes of clips before it answers, as a table and as a map."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from avzoo.embedding import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.description = (
        f"{parser.description}\n\n"
        "There is a row a segment, with the embedding of its sound, of its picture and of\n"
        "both joined. Labels are those of the data where it tells them: of a dataset in\n"
        "TAU's layout the list evaluation_setup/fold1_evaluate.csv; of a folder of\n"
        "folders, or of such in train, val and test, their names. Elsewhere the label is\n"
        "the model's own best class; the column label_source says which (list, folder or\n"
        "model)."
    )
    parser.epilog = (
        "Example:\n"
        "  avzoo embed clips --model joint-scalogram-scenemix --out e.npz --plot map.png\n\n"
        "Columns: id, path, start and end (s), label, label_source, answer (the model's\n"
        "best class), probability (of the answer), audio, visual, fused. Read them by\n"
        "numpy.load('e.npz')['fused'] or by pandas.read_parquet('e.parquet').\n\n"
        "The map is t-SNE by scikit-learn: begun with the principal components,\n"
        "perplexity 30 or for few rows a third of them, seeded. Near points are alike;\n"
        "how far apart groups lie means little.\n"
        "--plot and .parquet need: pip install 'avzoo[embed]'\n\n"
        "Exit status: 0 if every clip is embedded; 1 if any failed: the others are\n"
        "written all the same, and stderr says why."
    )
    parser.add_argument("path", nargs="+", type=Path, help="files, folders of them, or a dataset in TAU's layout")
    parser.add_argument(
        "--model",
        required=True,
        help="one with embeddings, such as joint-scalogram-scenemix; or hf:owner/repo@commit, or a folder",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the table to write, .npz or .parquet")
    parser.add_argument("--plot", type=Path, metavar="MAP.png", help="draw each embedding as a map, coloured by label")
    parser.add_argument("--audio", type=Path, metavar="DIR", help="the sounds of silent videos, found by their names")
    parser.add_argument("--device", default="cpu", help="where the model runs: cpu (default), cuda, cuda:1, mps")
    parser.add_argument("--seed", type=int, default=0, help="of the map (default 0)")
    parser.add_argument(
        "--on-missing-audio",
        choices=["error", "silence"],
        default="error",
        help="a clip without sound fails (default), or is read with silence",
    )
    parser.add_argument(
        "--on-damage",
        choices=["error", "pad"],
        default="error",
        help="a damaged file fails (default), or is embedded by what it still holds",
    )


def run(options: argparse.Namespace) -> None:
    """Embed all; exit with 1 if any file failed, after the others are written."""
    from tqdm import tqdm

    from avzoo import embedding, hub, plot, registry
    from avzoo.errors import AvzooError, as_flags

    if options.out is None and options.plot is None:
        raise AvzooError("there is nothing to write: give --out embeddings.npz, --plot map.png, or both")
    if options.out is not None:
        embedding.check_out(options.out)
    if options.plot is not None:
        plot.check_picture(options.plot)
        embedding.check_tsne()
    model = hub.load_ref(registry.parse_ref(options.model, paths=True), device=options.device)
    embed = embedding.Embedder(model, on_missing_audio=options.on_missing_audio, on_damage=options.on_damage)
    sources = embedding.find_sources(options.path, audio=options.audio, pictures=embed.visual)
    tables: list[Table] = []
    for source in tqdm(sources, unit="clip", disable=None if len(sources) > 1 else True):
        try:
            tables.append(embed(source))
        except (AvzooError, OSError) as error:
            tqdm.write(f"avzoo: {as_flags(str(error))}", file=sys.stderr)
    if tables:
        table = embedding.join(tables)
        kinds = [kind for kind in embedding.KINDS if kind in table]
        sizes = ", ".join(f"{kind} {table[kind].shape[1]}" for kind in kinds)
        said = f"{len(table['id'])} segments of {len(tables)} clips; {sizes}; labels by {_label_sources(table)}"
        if options.out is not None:
            embedding.write(table, options.out, model.name)
            print(f"{options.out}: {said}")
        if options.plot is not None:
            bar = tqdm(kinds, unit="map", disable=None)
            maps = {kind: embedding.tsne(table[kind], seed=options.seed) for kind in bar}
            print(f"{_draw(maps, table, model.classes, options.plot, model.name)}: {said}")
    if len(tables) < len(sources):
        print(f"avzoo: {len(sources) - len(tables)} of {len(sources)} failed", file=sys.stderr)
        sys.exit(1)


def _label_sources(table: Table) -> str:
    """Who says what the rows' labels are."""
    words = {"list": "the dataset's list", "folder": "the folders' names", "model": "the model's own answers"}
    return " and ".join(text for source, text in words.items() if (table["label_source"] == source).any())


def _draw(maps: dict[str, NDArray[np.float32]], table: Table, classes: list[str], out: Path, model: str) -> Path:
    from avzoo import embedding, plot

    rows = len(table["label"])
    return plot.embedding_map(
        maps,
        table["label"].tolist(),
        out,
        classes=classes,
        title=f"{model}: {rows} segments, t-SNE with perplexity {embedding.perplexity(rows):.3g}",
        legend=f"label, by {_label_sources(table)}",
    )
