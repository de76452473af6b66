"""The checkpoint inside the package: verified, right about what it renders, honest about what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import avzoo
from avzoo import bundle, cli, hub, registry
from avzoo.data import rendering
from avzoo.data.ave import AVE
from avzoo.data.events import segment_labels

AVEMIX = Path(__file__).parents[2] / "shared" / "data" / "avemix"
needs_avemix = pytest.mark.skipif(not AVEMIX.exists(), reason="avemix is not on this machine")


@pytest.fixture(scope="module")
def model() -> bundle.AVModule:
    return avzoo.load("avsdn-avemix")


def test_golden_outputs(model: bundle.AVModule) -> None:
    folder = hub.locate(registry.parse_ref("avsdn-avemix")).folder
    assert bundle.golden_difference(folder, model) <= bundle.GOLDEN_TOLERANCE
    # The whole path, decoder and resampler included, may differ a little more between machines.
    assert bundle.golden_difference(folder, model, media=True) <= 0.05


def test_everything_shipped_fits_the_budget() -> None:
    weights = [path for path in (registry.PACKAGE / "weights").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in weights) < 40e6


def test_demo_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["demo"])
    out = capsys.readouterr().out
    assert "10 of 10 seconds are right" in out
    assert (tmp_path / "avzoo-demo.png").stat().st_size > 20_000


def test_rendered_clips_of_other_seeds(model: bundle.AVModule, tmp_path: Path) -> None:
    right = []
    for seed in range(40_000_000, 40_000_006):
        script = rendering.script(seed, classes=rendering.CLASSES[:6])
        answer = avzoo.predict(rendering.render(script, tmp_path / f"{seed}.mp4"), model)
        truth = [script.category if script.start <= k < script.end else "background" for k in range(10)]
        right += [s.labels[0][0] == name for s, name in zip(answer.segments, truth, strict=True)]
    assert sum(right) / len(right) > 0.8


@needs_avemix
def test_a_few_real_clips(model: bundle.AVModule) -> None:
    data = AVE(AVEMIX, classes=model.classes, preprocess=model.preprocess)
    items = data.items("val")[:12]  # not the test split: it is measured once, by the benchmark
    right = [
        (
            avzoo.predict(item.path, model).probabilities.argmax(-1)
            == segment_labels(item, model.classes, model.preprocess)
        )
        for item in items
    ]
    assert float(torch.cat(right).float().mean()) > 0.85
