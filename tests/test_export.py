"""ONNX files answer as torch does, at any batch size, and say what their numbers mean."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from avzoo import bundle, cli, export
from avzoo.errors import AvzooError, BundleError
from avzoo.models import AVSDN

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CLASSES = ["drone", "bell", "background"]
PREPROCESS = {"audio_backbone": "avzoo-audio", "visual_backbone": "tf_efficientnet_lite0"}


def network(**options: Any) -> AVSDN:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"audio_dim": 128, "visual_dim": 1280, "hidden_dim": 4}
    return AVSDN(CLASSES, **{**sizes, **options}, preprocess=PREPROCESS).eval()


def features(batch: int, **options: int) -> dict[str, torch.Tensor]:
    time = options.get("time", 10)
    return {"audio": torch.randn(batch, time, 128), "visual": torch.randn(batch, time, 1280)}


def run(file: Path, clips: dict[str, torch.Tensor]) -> torch.Tensor:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in clips.items()})[0])


def test_the_command_writes_a_file_that_answers_as_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = network()
    golden = {name: value[0] for name, value in features(1).items()}
    monkeypatch.setattr("avzoo.bundle.writing.golden", lambda *_: {**golden, "logits": torch.zeros(10, 3)})
    (tmp_path / "clip").write_bytes(b"no film")
    folder = bundle.write(tmp_path / "b", model, recipe="", golden_clip=tmp_path / "clip", card="")
    out = tmp_path / "new" / "out.onnx"
    cli.main(["export", str(folder), "--onnx", str(out)])
    assert "any batch size, 10 segments" in capsys.readouterr().out
    for batch in (1, 2, 5):
        clips = features(batch)
        with torch.no_grad():
            torch.testing.assert_close(run(out, clips), model(**clips), atol=1e-4, rtol=0)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == CLASSES
    assert json.loads(facts["preprocess"]) == json.loads(json.dumps(model.preprocess.to_dict()))
    assert facts["task"] == "segment"
    assert [path.name for path in out.parent.iterdir()] == ["out.onnx"]
    with pytest.raises(Exception, match="INVALID_ARGUMENT"):  # a fixed number of segments, and it says so
        run(out, features(1, time=7))


def test_a_file_that_answers_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_difference", lambda *_: float("nan"))
    golden = features(1)
    with pytest.raises(BundleError, match="onnxruntime answers otherwise than torch"):
        export.export_onnx(network(), golden["audio"][0], golden["visual"][0], tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["onnxruntime", "onnxscript"])
def test_without_the_extra_it_says_what_to_install(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(AvzooError, match=rf"exporting needs {missing}: pip install 'avzoo\[onnx\]'"):
        export.export_onnx(network(), torch.zeros(10, 128), torch.zeros(10, 1280), tmp_path / "out.onnx")
