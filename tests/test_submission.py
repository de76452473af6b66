"""`avzoo predict --submission`: the challenge's table, from silent videos with their sound beside them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from avzoo import bundle, cli
from avzoo.data import rendering
from avzoo.data.tau_lists import TAU_CLASSES
from avzoo.models import JointScalogramNet


@pytest.mark.usefixtures("cheap_backbones")
def test_a_folder_of_silent_videos_becomes_a_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    root = rendering.write_tau(tmp_path / "tau", train=0, test=2, seconds=1, size=32, scenes=["bus", "tram"])
    torch.manual_seed(0)
    path = {"audio_kind": "scalogram", "visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0"}
    model = bundle.write(
        tmp_path / "model", JointScalogramNet(TAU_CLASSES, preprocess=path).eval(), recipe="", half=False
    )
    arguments = ["predict", str(root / "video"), "--audio", str(root / "audio"), "--model", str(model)]
    cli.main([*arguments, "--submission", "out.csv"])
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [Path(row["filename_video"]).stem for row in rows] == sorted(p.stem for p in (root / "video").iterdir())
    for row in rows:
        shares = {name: float(row[name]) for name in TAU_CLASSES}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert row["scene_label"] == max(shares, key=shares.__getitem__)
        assert row["filename_audio"] == row["filename_video"].replace("video/", "audio/").replace(".mp4", ".wav")
    assert "the clip:" in capsys.readouterr().out


@pytest.mark.usefixtures("cheap_backbones")
def test_other_classes_than_the_challenges_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = rendering.write_tau(tmp_path / "tau", train=0, test=1, seconds=1, size=32, scenes=["bus"])
    path = {"audio_kind": "scalogram", "visual_kind": "frame", "visual_backbone": "tf_efficientnet_lite0"}
    net = JointScalogramNet(["bus", "sea"], preprocess=path).eval()
    model = bundle.write(tmp_path / "model", net, recipe="", half=False)
    out = tmp_path / "out.csv"
    arguments = ["predict", str(root / "video"), "--audio", str(root / "audio"), "--model", str(model)]
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--submission", str(out)])
    assert "missing or too many" in capsys.readouterr().err
    assert not out.exists()
