from __future__ import annotations

import csv
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from avzoo import cli
from avzoo.audio_encoder import FRONT_END, AudioEncoder, spectrogram
from avzoo.data.sounds_pool import SoundPool, _room
from avzoo.errors import AvzooError, DataNotFoundError
from avzoo.models.distillation import AudioDistillation, YAMNet, _mask, export_encoder

SHARED = Path(__file__).parents[2] / "shared"
CLASSES = ["background", "high", "low"]
# What YAMNet's layers look like: (outputs, inputs) of the 1x1 and full convolutions, depthwise ones between them.
WIDTHS = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like YAMNet's, with random weights."""
    rng = np.random.default_rng(0)
    arrays = {"layer01.conv.weight": rng.normal(0, 0.3, (32, 1, 3, 3)), "layer01.bias": np.zeros(32)}
    for i, (inputs, width) in enumerate(pairwise(WIDTHS)):
        depthwise, pointwise = f"layer{2 * i + 2:02d}", f"layer{2 * i + 3:02d}"
        arrays[f"{depthwise}.depthwise.weight"] = rng.normal(0, 0.5, (inputs, 1, 3, 3))
        arrays[f"{depthwise}.bias"] = np.zeros(inputs)
        arrays[f"{pointwise}.conv.weight"] = rng.normal(0, (2 / inputs) ** 0.5, (width, inputs, 1, 1))
        arrays[f"{pointwise}.bias"] = np.zeros(width)
    arrays |= {"fc.weight": rng.normal(0, 0.03, (521, 1024)), "fc.bias": np.full(521, -4.0)}
    path = tmp_path_factory.mktemp("teacher") / "yamnet.npz"
    np.savez(path, **{key: value.astype(np.float32) for key, value in arrays.items()})
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two clips in AVE's layout (a low tone, then a high one; noise as background) and two nameless recordings."""
    named, unnamed = tmp_path_factory.mktemp("named"), tmp_path_factory.mktemp("unnamed")
    (named / "AVE").mkdir()
    (unnamed / "audio").mkdir()
    rng = np.random.default_rng(0)
    seconds = ["low"] * 4 + ["high"] * 4 + ["background"] * 2
    time = np.arange(16_000) / 16_000
    sounds = {
        "low": 0.3 * np.sin(2 * np.pi * 300 * time),
        "high": 0.3 * np.sin(2 * np.pi * 3000 * time),
        "background": 0.05 * rng.normal(size=16_000),
    }
    wave = np.concatenate([sounds[name] for name in seconds]).astype(np.float32)
    with (named / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["video_id", "split", "audio_per_second"])
        for name, split in (("a", "train"), ("b", "val"), ("c", "test")):
            table.writerow([name, split, "|".join(seconds)])
            if split != "test":  # a test clip is never read, so it need not be there
                write_sound(named / "AVE" / f"{name}.mp4", wave)
    with (unnamed / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filename_audio", "split"])
        table.writerow(["audio/x.ogg", "train"])
        table.writerow(["audio/y.ogg", "val"])
    soundfile.write(unnamed / "audio" / "x.ogg", 0.1 * rng.normal(size=(220_500, 2)), 22_050)
    return named, unnamed


def write_sound(path: Path, wave: np.ndarray) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)


def pool(folders: tuple[Path, Path], **options: float) -> SoundPool:
    data = SoundPool(*folders, batch_size=16, steps=3, **options)  # type: ignore[arg-type]
    data.setup("fit")
    return data


def test_the_encoder_is_small_enough_and_gives_one_vector_a_segment() -> None:
    encoder = AudioEncoder().eval()
    assert sum(p.numel() for p in encoder.parameters()) <= 4_000_000
    assert encoder(torch.zeros(3, 1, 64, FRONT_END["frames"])).shape == (3, 128)
    assert encoder.dim == 128
    with pytest.raises(AvzooError, match=r"\[batch, 1, 64, frames\]"):
        encoder(torch.zeros(3, 64, 96))


def test_a_segment_is_embedded_alike_alone_and_in_a_batch() -> None:
    encoder = AudioEncoder().eval()
    mel = torch.randn(4, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(encoder(mel)[2:3], encoder(mel[2:3]), atol=1e-5, rtol=1e-5)


def test_masks_are_strips_within_the_share() -> None:
    torch.manual_seed(0)
    mel = torch.randn(50, 1, 64, 96)
    masked = _mask(mel, 0.2) != mel
    bands, frames = masked.all(3).sum(2), masked.all(2).sum(2)
    assert bands.max() <= 0.2 * 64 + 1
    assert frames.max() <= 0.2 * 96 + 1
    assert 0 < masked.float().mean() < 0.36
    torch.testing.assert_close(_mask(mel, 0.0), mel)


def test_training_batches_are_seconds_seeded_by_their_number(folders: tuple[Path, Path]) -> None:
    data = pool(folders)
    assert data.classes == CLASSES
    loader = data.train_dataloader()
    first_epoch, second_epoch = list(loader), list(loader)
    assert len(first_epoch) == 3
    assert first_epoch[0].mel.shape == (16, 1, 64, FRONT_END["frames"])
    assert not first_epoch[0].mel.equal(second_epoch[0].mel)
    for batch, again in zip(first_epoch, pool(folders).train_dataloader(), strict=True):
        assert batch.mel.equal(again.mel)
        assert batch.label.equal(again.label)
        assert batch.mel.isfinite().all()


def test_labels_stay_with_their_sounds(folders: tuple[Path, Path]) -> None:
    """After pitch shift, mixing and filters, most crops called "high" have their energy above 1 kHz, "low" below."""
    batches = islice(pool(folders, unnamed_share=0.0).train_dataloader(), 3)
    mel, label = (torch.cat(part) for part in zip(*batches, strict=True))
    power = mel[:, 0].exp().square().mean(2)
    share = power[:, 25:].sum(1) / power.sum(1)  # band 25 begins at 1.1 kHz
    assert {0, 1, 2} <= set(label.tolist())
    assert share[label == 1].median() > 0.8
    assert share[label == 2].median() < 0.5
    nameless = pool(folders, unnamed_share=1.0).train_dataloader()
    assert all((batch.label == -1).all() for batch in nameless)


def test_a_diffuse_tail_keeps_the_energy_and_looks_only_back() -> None:
    click = torch.zeros(1, 2, 96)
    click[:, :, 30] = 1.0
    tail = _room(click, torch.tensor([0.8]))
    assert tail[..., :30].abs().max() == 0
    assert (tail[..., 31:60].diff() <= 0).all()
    torch.testing.assert_close(tail.square().sum(2), torch.ones(1, 2), atol=1e-4, rtol=0)


def test_validation_is_the_named_seconds_as_they_are(folders: tuple[Path, Path]) -> None:
    batches = list(pool(folders).val_dataloader())
    mel, label = (torch.cat(part) for part in zip(*batches, strict=True))
    assert [CLASSES[i] for i in label] == ["low"] * 4 + ["high"] * 4 + ["background"] * 2
    time = torch.arange(16_000) / 16_000
    for frequency, second in ((300, 1), (3000, 6)):
        expected = spectrogram(0.3 * torch.sin(2 * torch.pi * frequency * time)[None])
        loud = expected > 0
        assert mel.shape[1:] == expected.shape[1:] == (1, 64, 96)
        torch.testing.assert_close(mel[second][loud[0]], expected[loud], atol=0.3, rtol=0)  # AAC lies between


def test_data_that_is_not_there_is_named(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    with pytest.raises(DataNotFoundError, match=r"metadata\.csv"):
        SoundPool(tmp_path, tmp_path)
    (tmp_path / "metadata.csv").write_text("video_id,split\na,train\n")
    with pytest.raises(DataNotFoundError, match="audio_per_second"):
        SoundPool(tmp_path, tmp_path)
    with pytest.raises(DataNotFoundError, match="setup"):
        SoundPool(*folders).train_dataloader()
    with pytest.raises(DataNotFoundError, match=r"yamnet\.npz"):
        YAMNet(tmp_path / "yamnet.npz")


def test_training_learns_and_only_the_encoder_is_exported(
    folders: tuple[Path, Path], teacher: Path, tmp_path: Path
) -> None:
    lightning = pytest.importorskip("lightning")
    from safetensors.torch import load_file

    torch.manual_seed(0)
    data = pool(folders)
    model = AudioDistillation(data.classes, teacher)
    fixed = next(iter(data.train_dataloader()))
    before = {key: value.item() for key, value in model.losses(fixed).items()}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=4, num_sanity_val_steps=0, default_root_dir=tmp_path, **quiet)
    trainer.fit(model, datamodule=data)
    model.train()
    after = {key: value.item() for key, value in model.losses(fixed).items()}
    assert after["embedding"] < before["embedding"]
    assert after["name"] < before["name"]
    assert not [key for key in model.state_dict() if "teacher" in key]

    trainer.save_checkpoint(tmp_path / "best.ckpt", weights_only=True)
    export_encoder(tmp_path / "best.ckpt", tmp_path / "weights" / "encoder.safetensors")
    stored = load_file(tmp_path / "weights" / "encoder.safetensors")
    half = AudioEncoder()
    half.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored.items()})
    assert not [v.dtype for v in stored.values() if v.is_floating_point() and v.dtype != torch.float16]
    mel = fixed.mel
    with torch.no_grad():
        torch.testing.assert_close(half.eval()(mel), model.encoder.eval()(mel), atol=0.05, rtol=0.05)


def test_export_refuses_what_is_no_checkpoint_of_it(tmp_path: Path) -> None:
    file, out = tmp_path / "a.ckpt", tmp_path / "no.safetensors"
    with pytest.raises(DataNotFoundError, match=r"a\.ckpt"):
        export_encoder(file, out)
    for content in ({"state_dict": {"other": torch.zeros(1)}}, {"epoch": 1}, Path("a")):
        torch.save(content, file)
        with pytest.raises(AvzooError, match="not a checkpoint of AudioDistillation"):
            export_encoder(file, out)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="YAMNet's weights are not in the repository")
def test_the_teacher_names_a_tone_as_yamnet_does() -> None:
    folder = SHARED / "data" / "weights" / "yamnet"
    names = (folder / "yamnet_label_list.txt").read_text().splitlines()
    model = AudioDistillation(CLASSES, folder / "yamnet_dequantised_float32.npz")
    time = torch.arange(16_000) / 16_000
    tone, silence = 0.5 * torch.sin(2 * torch.pi * 440 * time), torch.zeros(16_000)
    with torch.no_grad():
        _, scores = model._teacher[0](spectrogram(torch.stack([tone, silence])))
    assert [names[i] for i in scores.argmax(1)] == ["Sine wave", "Silence"]


def test_the_recipe_trains_by_the_command_line(
    folders: tuple[Path, Path], teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = {"trainer.max_epochs": 1, "trainer.enable_progress_bar": "false", "data.steps": 2, "data.batch_size": 4}
    data = {"data.named": folders[0], "data.unnamed": folders[1], "model.teacher": teacher}
    options = [word for key, value in {**small, **data}.items() for word in (f"--{key}", str(value))]
    cli.main(["fit", "--config", "recipes/audio-encoder.yaml", *options])  # the one in the package: none lies here
    best = tmp_path / "runs" / "audio-encoder" / "version_0" / "checkpoints" / "best.ckpt"
    export_encoder(best, tmp_path / "encoder.safetensors")
    assert (tmp_path / "encoder.safetensors").stat().st_size > 1_000_000
