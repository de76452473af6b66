"""Augmented pictures: a view is a function of picture and seed, and of nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from avzoo.augment import augment, view_seeds


def pictures(count: int = 4, height: int = 24, width: int = 32) -> Tensor:
    """A smooth ramp with a mark that shows which side is which; all pictures are alike."""
    across, down = torch.linspace(0, 255, width), torch.linspace(0, 255, height)[:, None]
    image = torch.stack([across.expand(height, width), down.expand(height, width), (across + down) / 2])
    return image.to(torch.uint8).expand(count, -1, -1, -1).clone()


def test_seed_0_leaves_a_picture_as_it_is() -> None:
    given = pictures()
    assert torch.equal(augment(given, torch.zeros(4, dtype=torch.int64)), given)
    mixed = augment(given, torch.tensor([0, 7, 0, 8]))
    assert torch.equal(mixed[[0, 2]], given[[0, 2]])
    assert not torch.equal(mixed[1], given[1])


def test_a_view_is_a_function_of_picture_and_seed() -> None:
    given, seeds = pictures(6), torch.tensor([5, 6, 7, 5, 1 << 62, 6])
    views = augment(given, seeds)
    assert views.dtype == torch.uint8
    assert views.shape == given.shape
    assert torch.equal(augment(given, seeds), views)
    for index in range(6):  # whatever else is in the batch
        assert torch.equal(augment(given[index : index + 1], seeds[index : index + 1])[0], views[index])
    assert torch.equal(views[0], views[3])
    assert torch.equal(views[1], views[5])
    assert len({bytes(view.numpy().tobytes()) for view in views}) == 4


def test_the_given_pictures_and_the_processs_own_randomness_are_untouched() -> None:
    given = pictures()
    copy = given.clone()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = augment(given, torch.arange(4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(given, copy)
    torch.manual_seed(99)
    assert torch.equal(augment(given, torch.arange(4)), first)  # nor does that randomness reach a view


def test_views_crop_flip_and_recolour() -> None:
    views = augment(pictures(200), torch.arange(1, 201)).float()
    slope = views[:, 0, :, -1].mean(1) - views[:, 0, :, 0].mean(1)  # of red, which rises from left to right
    flipped = float((slope < 0).float().mean())
    assert 0.35 < flipped < 0.65
    assert slope.abs().min() < 150 < slope.abs().max()  # crops of many sizes
    brightness = views.mean((1, 2, 3))
    assert float(brightness.max() - brightness.min()) > 60


def test_seeds_of_a_clips_views() -> None:
    assert view_seeds("a", 0, 3).tolist() == [0, 0, 0]
    one = view_seeds("a", 1, 3)
    assert one.dtype == torch.int64
    assert (one > 0).all()
    every = [*one.tolist(), *view_seeds("a", 2, 3).tolist(), *view_seeds("b", 1, 3).tolist()]
    assert len(set(every)) == 9
    assert torch.equal(view_seeds("a", 1, 50)[:3], one)  # a picture's seed is its own, however many follow
    assert torch.equal(view_seeds("a", 1, 3), one)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is at hand")
def test_the_device_makes_no_difference() -> None:
    given, seeds = pictures(16), torch.arange(16)
    state = torch.cuda.get_rng_state()
    there = augment(given.cuda(), seeds.cuda())
    assert there.is_cuda
    assert torch.equal(torch.cuda.get_rng_state(), state)
    torch.testing.assert_close(there.cpu(), augment(given, seeds), atol=2, rtol=0)
