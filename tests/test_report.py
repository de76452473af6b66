"""The picture that a finished run leaves, and what it is drawn from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from avzoo import bundle, cli, registry
from avzoo.train import report
from avzoo.train.tracking import Record

FACTS = {"recipe": "some", "run": "version_0", "commit": "", "avzoo_commit": "a" * 40}


def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the next report is drawn from; it is drawn."""
    seen: dict[str, object] = {}
    draw = report.draw

    def watched(curves: object, out: Path, **options: object) -> Path:
        seen.update(curves=curves, **options)
        return draw(curves, out, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(report, "draw", watched)
    return seen


def test_curves_are_read_as_they_were_logged(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "epoch,lr,step,train_loss,val_loss\n0,0.1,2,,3.0\n0,0.1,2,4.0,\n1,0.1,5,,2.0\n1,0.1,5,,2.5\n"
    )
    assert report.read_curves(tmp_path / "metrics.csv") == {
        "train_loss": [(1, 4.0)],
        "val_loss": [(1, 3.0), (2, 2.5)],  # of two values of an epoch the later one
    }


def test_the_best_epoch_is_that_of_the_first_best_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,step,val_a\n0,1,0.5\n1,2,0.8\n2,3,0.8\n3,4,0.6\n")
    seen = drawn(monkeypatch)
    record = Record(FACTS)
    record.seconds = 754
    report.write_report(tmp_path, record, "val_a", counts=None, classes=())
    assert seen["best"] == ("val_a", 2)
    assert seen["said"] == f"best val_a 0.8000 in epoch 2 of 4,  12 min 34 s,  commit {'a' * 10}"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_nothing_logged_nothing_drawn(tmp_path: Path) -> None:
    assert report.write_report(tmp_path, Record(FACTS), "val_a", counts=None, classes=()) is None
    assert not (tmp_path / "report.png").exists()


def test_a_matrix_that_nobody_could_read_is_left_out(tmp_path: Path) -> None:
    curves = report.panels({"val_loss": [(1, 2.0)]})
    sizes = []
    for classes in (3, report.MOST_CLASSES, 400):
        names = [f"class {index}" for index in range(classes)]
        counts = torch.eye(classes, dtype=torch.int64)
        report.draw(curves, tmp_path / "a.png", title="a $b$", said="", counts=counts, classes=names)
        with Image.open(tmp_path / "a.png") as picture:
            sizes.append(picture.width)
    assert sizes[2] < sizes[0] < sizes[1]


@pytest.mark.usefixtures("cheap_backbones")
@pytest.mark.parametrize("recipe", ["avsdn-avemix", "secrnn-scenemix-audio", "joint-scalogram-scenemix"])
def test_a_run_ends_with_its_report(
    recipe: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    root = request.getfixturevalue("rendered" if recipe == "avsdn-avemix" else "rendered_tau")
    seen = drawn(monkeypatch)
    options = ["--data.root", str(root), "--data.workers", "0", "--data.batch_size", "4", "--trainer.max_epochs", "2"]
    options += ["--trainer.check_val_every_n_epoch", "1"]
    cli.main(["fit", "--config", str(registry.asset(f"recipes/{recipe}.yaml")), *options])
    run = Path("runs", recipe, "version_0")
    assert f"report: {run / 'report.png'}" in capsys.readouterr().out
    counts, classes = seen["counts"], seen["classes"]
    model = bundle.read(run / "bundle")
    assert classes == model.classes
    assert isinstance(counts, torch.Tensor)
    monitor, epoch = seen["best"]  # type: ignore[misc]
    best = dict(report.read_curves(run / "metrics.csv")[monitor])[epoch]
    if monitor.endswith("segment_accuracy"):  # the matrix is the best checkpoint's, on all of validation
        assert int(counts.diagonal().sum()) / int(counts.sum()) == pytest.approx(best)
    with Image.open(run / "report.png") as picture:
        assert picture.width > picture.height > 300
