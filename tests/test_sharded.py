"""Sharded: training from shards is training from what was packed, bit for bit, and keeps nothing in memory."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media import Picture, Sound, write_media
from shard_server import serve

from avzoo import backbones, cli, registry
from avzoo.data.base import AVDataModule
from avzoo.data.clips import Clips
from avzoo.data.packing import pack
from avzoo.data.sharded import Sharded, segment_labels
from avzoo.data.tau import TAU
from avzoo.data.windows import Window, window_labels
from avzoo.errors import AvzooError, DataNotFoundError, MediaError
from avzoo.files import sha256
from avzoo.models import AVSDN
from avzoo.preprocess import Preprocess
from avzoo.shards import Shards, reading
from avzoo.shards.index import Entry, write_index

LIGHT: dict[str, Any] = {"audio_backbone": "vggish", "visual_backbone": "tf_efficientnet_lite0", "size": 32}
GAMMATONE: dict[str, Any] = {
    "audio_kind": "gammatone", "sample_rate": 8000, "window": 320, "hop": 160, "f_max": 4000.0, "fps": 5,
    "visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0", "size": 16,
}  # fmt: skip
QUIET = ["--data.workers", "0", "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"]


def weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    state: dict[str, torch.Tensor] = checkpoint["state_dict"]
    return state


@pytest.mark.usefixtures("cheap_backbones")
@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("avsdn-avemix", ["--data.views", "2", "--data.batch_size", "4", "--trainer.max_epochs", "2"]),
        (
            "secrnn-scenemix-audio",
            ["--data.batch_size", "2", "--trainer.check_val_every_n_epoch", "1", "--trainer.max_epochs", "1"],
        ),
        ("joint-scalogram-scenemix", ["--data.views", "2", "--trainer.max_epochs", "1"]),
    ],
)
def test_training_from_shards_gives_the_same_weights(
    recipe: str,
    options: list[str],
    rendered: Path,
    rendered_tau: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    root = rendered if recipe.startswith("avsdn") else rendered_tau
    common = ["--config", str(registry.asset(f"recipes/{recipe}.yaml"))]
    original = [*common, "--data.root", str(root), *options, *QUIET]
    cli.main(["shard", *original, "--out", "packed", "--megabytes", "1"])
    assert "--data Sharded --data.root packed" in capsys.readouterr().out
    sharded = [*common, "--data", "Sharded", "--data.root", "packed", *options, *QUIET]
    for arguments in (original, sharded):
        cli.main(["fit", *arguments])
    first, second = (weights(tmp_path / "runs" / recipe / f"version_{n}") for n in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    logs = [(tmp_path / "runs" / recipe / f"version_{n}" / "metrics.csv").read_text() for n in (0, 1)]
    assert "val_loss" in logs[0]


@pytest.mark.usefixtures("cheap_backbones")
def test_an_end_in_the_middle_leaves_no_trace(rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with processes that had read batches ahead."""
    monkeypatch.chdir(tmp_path)
    common = ["--config", str(registry.asset("recipes/avsdn-avemix.yaml")), *QUIET]
    cli.main(["shard", *common, "--data.root", str(rendered), "--out", "packed"])
    command = ["fit", *common, "--data", "Sharded", "--data.root", "packed", "--data.batch_size", "1"]
    command += ["--model.hidden_dim", "8", "--trainer.max_epochs", "2", "--save_every", "2", "--data.loaders"]
    cli.main([*command, "0"])
    training_step, steps = AVSDN.training_step, itertools.count(1)

    def step(self: AVSDN, batch: Any, index: int) -> torch.Tensor:
        if next(steps) == 10:  # of 12
            raise RuntimeError("power cut")
        return training_step(self, batch, index)

    monkeypatch.setattr(AVSDN, "training_step", step)
    with pytest.raises(RuntimeError, match="power cut"):
        cli.main([*command, "2"])
    cli.main([*command, "2"])
    assert next(steps) == 10 + 1 + 4  # from the checkpoint after 8 steps on
    first, second = (weights(tmp_path / "runs/avsdn-avemix" / f"version_{n}") for n in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)


def scenes(root: Path, **options: Any) -> TAU:
    return TAU(root, val="metadata", preprocess=GAMMATONE, workers=0, batch_size=2, **options)


def batches(data: AVDataModule, epochs: int = 2) -> list[tuple[Any, ...]]:
    data.setup("fit")
    loader, val = data.train_dataloader(), data.val_dataloader()
    return [tuple(batch) for _ in range(epochs) for batch in loader] + [tuple(batch) for batch in val]


def assert_same(one: list[tuple[Any, ...]], two: list[tuple[Any, ...]]) -> None:
    for first, second in zip(one, two, strict=True):
        for a, b in zip(first, second, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture
def features(rendered_tau: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Gammatones and pictures of the scenes, a shard each."""
    request.getfixturevalue("cheap_backbones")
    pack(scenes(rendered_tau, views=2), tmp_path / "features", content="features", megabytes=0)
    return tmp_path / "features"


def from_shards(root: Path | str, **options: Any) -> Sharded:
    return Sharded(str(root), **{"preprocess": GAMMATONE, "workers": 0, "batch_size": 2, **options})


def test_loaders_read_ahead_in_the_same_order(features: Path, rendered_tau: Path) -> None:
    cut: dict[str, Any] = {"examples": "second", "streams": 2, "views": 2}
    original = batches(scenes(rendered_tau, **cut))
    assert_same(original, batches(from_shards(features, **cut)))
    assert_same(original, batches(from_shards(features, loaders=2, **cut)))
    one, two = scenes(rendered_tau), from_shards(features)
    for data in (one, two):
        data.setup("fit")
    for a, b in zip(one.audio_statistics(), two.audio_statistics(), strict=True):
        assert torch.equal(a, b)
    assert_same([tuple(one.whole("val"))], [tuple(two.whole("val"))])


def test_a_batch_reads_its_records_and_keeps_none(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, read = from_shards(features), list[int]()
    from_file = Shards._from_file
    monkeypatch.setattr(Shards, "_from_file", lambda self, row: (read.append(row), from_file(self, row))[1])
    data.setup("fit")
    assert read == [0, 4]  # for the shapes
    read.clear()
    data.shards._ahead.clear()
    for batch in data.train_dataloader():
        rows = [data.shards.splits["train"][0] + [*data.sets["train"].ids].index(id_) for id_ in batch.id]  # type: ignore[attr-defined]
        assert sorted(read) == sorted(rows)  # once for sound and pictures
        read.clear()
        data.shards._ahead.clear()
    held = [
        value for column in (data.sets["train"].audio, data.sets["train"].visual) for value in vars(column).values()
    ]  # type: ignore[attr-defined]
    assert not [value for value in held if isinstance(value, torch.Tensor)]
    monkeypatch.setattr(reading, "AHEAD", 0)
    for _ in data.train_dataloader():
        assert len(data.shards._ahead) == 2  # the present batch


def test_over_a_network_a_batch_is_one_round_of_ranges(features: Path, rendered_tau: Path, tmp_path: Path) -> None:
    small = ((features / "index.safetensors").stat().st_size + 1) / 1e9
    with serve(features) as server:
        near = from_shards(server.url, cache=tmp_path / "near")
        assert_same(batches(scenes(rendered_tau)), batches(near))
        assert len(server.fetched(".tar")) == 8  # every shard of train and val once
        server.log.clear()
        far = from_shards(server.url, cache=tmp_path / "far", cache_size=small)
        assert_same(batches(scenes(rendered_tau)), batches(far))
        assert len(server.fetched(".tar")) == 8  # these few stay in memory


@pytest.mark.usefixtures("cheap_backbones")
@pytest.mark.parametrize("content", ["clips", "frames"])
def test_features_are_extracted_from_what_was_packed(
    content: Any, rendered_tau: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = scenes(rendered_tau, views=2)
    original.prepare_data()
    pack(scenes(rendered_tau), tmp_path / "packed", content=content)
    data = from_shards(tmp_path / "packed", views=2)
    data.prepare_data()
    assert_same(batches(original), batches(data))
    monkeypatch.setattr(backbones, "build", None)  # they are found again, wherever the shards lie
    (tmp_path / "packed").rename(tmp_path / "moved")
    from_shards(tmp_path / "moved", views=2).prepare_data()


@pytest.mark.usefixtures("cheap_backbones")
def test_windows_of_a_long_file_are_read_from_one_record(tmp_path: Path) -> None:
    rows = ["path,label,start,end,split"]
    for name, split in (("a", "train"), ("b", "val")):
        write_media(
            tmp_path / f"{name}.mkv", Picture(seconds=23, fps=10), Sound(codec="flac", format="s16", seconds=23)
        )
        rows += [f"{name}.mkv,bell,2,12,{split}", f"{name}.mkv,siren,9,13.5,{split}"]
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    original = Clips(tmp_path / "clips.csv", preprocess=LIGHT, workers=0, batch_size=2, swap=0.5)
    original.prepare_data()
    pack(original, tmp_path / "packed", content="clips")
    data = Sharded(str(tmp_path / "packed"), preprocess=LIGHT, workers=0, batch_size=2, swap=0.5)
    data.prepare_data()
    assert data.task == "events"
    items = data.items("train")
    assert [(item.key, item.label, item.start, item.end) for item in items] == [
        (item.key, item.label, item.start, item.end) for item in original.items("train")
    ]
    assert_same(batches(original), batches(data))
    assert len({data.shards.index.span(row) for row in data.shards.splits["train"]}) == 1
    with pytest.raises(DataNotFoundError, match="has no test shards, only train, val"):
        data.items("test")


@pytest.mark.usefixtures("cheap_backbones")
def test_a_clip_that_cannot_be_read_is_named_by_its_shard(tmp_path: Path) -> None:
    silent = tmp_path / "clips"
    for label in ("bus", "tram"):
        for name in "ab":
            (silent / label).mkdir(parents=True, exist_ok=True)
            write_media(silent / label / f"{name}.mp4", Picture(seconds=1, fps=5, size=(16, 16)))
    pack(Clips(silent, preprocess=GAMMATONE, workers=0), tmp_path / "packed", content="clips")
    named = r"packed/train-000000\.tar, record 'tram/a\.mp4': .*has no audio stream"
    with pytest.raises(MediaError, match=f"4 of 4 clips(?s:.*){named}"):  # two and two of the same id
        from_shards(tmp_path / "packed").prepare_data()
    from_shards(tmp_path / "packed", on_missing_audio="silence").prepare_data()


def test_another_signal_path_is_refused_with_both_numbers(features: Path, rendered_tau: Path, tmp_path: Path) -> None:
    for number, value, said in (
        ("bands", 32, "bands=64, the recipe wants bands=32"),
        ("visual_backbone", "resnet152.tv_in1k", "visual_backbone='tf_efficientnet_lite0'.* wants .*'resnet152"),
    ):
        with pytest.raises(AvzooError, match=rf"these features were made with .*{said}.*pack again"):
            from_shards(features, preprocess={**GAMMATONE, number: value}).classes  # noqa: B018
    with pytest.raises(AvzooError, match=r"views=3: .* holds 2"):
        from_shards(features, views=3).classes  # noqa: B018
    with pytest.raises(AvzooError, match=r"swap=0\.5 is not for scenes"):
        from_shards(features, swap=0.5).items("train")
    pack(scenes(rendered_tau), tmp_path / "frames", content="frames")
    other_network = {**GAMMATONE, "visual_backbone": "resnet152.tv_in1k", "interpolation": "bicubic", "bands": 32}
    from_shards(tmp_path / "frames", preprocess=other_network).classes  # noqa: B018
    with pytest.raises(AvzooError, match="these frames were made with size=16, the recipe wants size=32"):
        from_shards(tmp_path / "frames", preprocess={**GAMMATONE, "size": 32}).classes  # noqa: B018


def test_weights_of_another_make_are_refused(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avzoo.preprocess.numbers.SIGNAL_PATH_VERSION", 99)
    with pytest.raises(AvzooError, match=r"made with audio fingerprint='.*', visual fingerprint="):
        from_shards(features).classes  # noqa: B018


def test_labels_of_all_rows_at_once(tmp_path: Path) -> None:
    """As `window_labels` has them one by one; events overlap, touch, and end on the middle of a segment."""
    classes, preprocess, draw = ["a", "b", "c", "background"], Preprocess.of(LIGHT), random.Random(0)
    windows = []
    for n in range(200):
        times = [sorted(draw.choice([draw.uniform(0, 10), draw.randrange(21) / 2]) for _ in "12") for _ in range(n % 4)]
        events = tuple((draw.choice(classes[:3]), *time) for time in sorted(times)) or (("background", 0.0, 0.0),)
        windows.append(Window(str(n), str(n), tmp_path, *events[0], events=events))
    entries = (
        Entry(w.key, w.id, 0, 0, 0, bytes(32), 0.0, tuple((classes.index(label), a, b) for label, a, b in w.events))
        for w in windows
    )
    write_index(tmp_path / "index.safetensors", entries)
    index = {"size": 0, "sha256": sha256(tmp_path / "index.safetensors")}
    facts = {"format": 1, "content": "features", "classes": classes, "shards": {"x.tar": 0}, "splits": {"train": 200}}
    (tmp_path / "shards.json").write_text(json.dumps({**facts, "index": index}))
    rows = np.array([*range(199, -1, -3), 0, 1])
    expected = torch.stack([window_labels(windows[row], classes, preprocess) for row in rows])
    assert torch.equal(segment_labels(Shards(tmp_path), rows, preprocess), expected)
