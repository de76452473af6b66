"""Mixed precision: the same losses as in 32 bits, to what the narrower numbers allow, and never infinite ones."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import small
import struck
import torch

RECIPES = ["mlp-avemix", "avsdn-ave", "avsdn-avemix", "avsdn-ave-weak", "secrnn-tau", "secrnn-scenemix-audio"]
RECIPES += ["secrnn-scenemix", "joint-scalogram-scenemix", "joint-scalogram-tau"]
STEPS, ROWS = 20, 6
TOLERANCE = 0.02  # largest distance of any of the first 20 losses, as a share of the first
quiet = pytest.mark.filterwarnings("ignore:.*(does not have many workers|in eval mode at the start|logging interval)")


def losses(recipe: str, precision: str, **options: Any) -> list[float]:
    """Of 20 steps on new rows each; nothing is drawn by lot."""
    batches = [[*range(ROWS * step, ROWS * (step + 1))] for step in range(STEPS)]
    rate = {"lr": 1e-3} if "joint" in recipe else {}  # the recipe's own is for batches of 256
    return small.fit(small.model(recipe, sure=True, **rate), batches, precision=precision, **options).losses


def distance(found: list[float], expected: list[float]) -> float:
    assert len(found) == len(expected) == STEPS
    assert torch.tensor(found).isfinite().all()
    return max(abs(a - b) for a, b in zip(found, expected, strict=True)) / expected[0]


@pytest.fixture(autouse=True)
def _seeded_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    struck.seed_backbones(monkeypatch.setattr)


@quiet
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_first_steps_are_those_of_32_bits(recipe: str) -> None:
    expected = losses(recipe, "32-true")
    apart = distance(losses(recipe, "bf16-mixed"), expected)
    print(f"{recipe}: bf16-mixed at most {apart:.3%} from 32-true; {expected[0]:.3f} to {expected[-1]:.3f}")
    assert 0 < apart < TOLERANCE


@quiet
def test_on_a_cpu_16_bits_are_bfloat16() -> None:
    # Lightning says so: float16 has no recurrence there
    with pytest.warns(UserWarning, match="AMP with fp16 is not supported on CPU"):
        found = losses("avsdn-avemix", "16-mixed")
    assert found == losses("avsdn-avemix", "bf16-mixed")


@quiet
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_the_first_steps_on_a_gpu_are_those_of_32_bits(recipe: str, precision: str) -> None:
    # in 16-mixed the first steps may be skipped, until the scale of the loss fits
    expected = losses(recipe, "32-true", accelerator="gpu")
    found = losses(recipe, precision, accelerator="gpu")
    assert distance(expected, losses(recipe, "32-true")) < TOLERANCE
    assert distance(found, expected) < TOLERANCE * (1 if precision == "bf16-mixed" else 10)


@pytest.mark.parametrize("recipe", sorted(small.RECIPES))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_32_bits(recipe: str, dtype: torch.dtype) -> None:
    model = small.model(recipe, sure=True).train()
    label = small.examples(model, 6).label
    scores = torch.randn(6, 4 if model.task == "segment" else 1, 3, generator=torch.Generator().manual_seed(1))
    scores = (20 * scores if model.task == "segment" else (20 * scores).log_softmax(-1)).to(dtype)
    with torch.autocast("cpu", dtype):
        loss = model.loss(scores, label)
    assert loss.dtype == torch.float32
    assert loss == model.loss(scores.float(), label)


def in_bfloat16(processes: int) -> list[float]:
    warnings.simplefilter("ignore")
    return losses("secrnn-scenemix-audio", "bf16-mixed", processes=processes)


@quiet
def test_two_processes_in_bfloat16(tmp_path: Path) -> None:
    first, second = struck.together(in_bfloat16, 2, processes=2, folder=tmp_path)
    both = [(a + b) / 2 for a, b in zip(first.result, second.result, strict=True)]
    assert first.result != second.result  # of their own shares
    assert distance(both, losses("secrnn-scenemix-audio", "32-true")) < TOLERANCE
