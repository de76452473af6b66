"""The options that all datasets have: said once, and yet known to the command line by name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from avzoo.data import AVE, TAU, AVDataModule, Clips, Sharded, Synthetic
from avzoo.data.events import EventDataModule

COMMON = dict(inspect.signature(AVDataModule).parameters)


class Mine(EventDataModule):
    """A dataset of one's own.

    Args:
        root: Its folder.
        options: As of `EventDataModule`.
    """

    def __init__(self, root: Path, **options: Any) -> None:
        super().__init__(**options)
        self.root = root


def listed(dataset: type) -> dict[str, Any]:
    """The options that the command line lists, each an action with type, default and help."""
    parser = ArgumentParser()
    parser.add_class_arguments(dataset, "data")
    actions = {action.dest.removeprefix("data."): action for action in parser._actions if "data." in action.dest}
    return {name: action for name, action in actions.items() if "." not in name}


@pytest.mark.parametrize(("dataset", "batch_size"), [(AVE, 64), (Mine, 64), (TAU, 32), (Clips, 32), (Sharded, 32)])
def test_the_command_line_lists_what_is_handed_on(dataset: type, batch_size: int) -> None:
    found = listed(dataset)
    for name, parameter in COMMON.items():
        default = batch_size if name == "batch_size" else parameter.default
        assert found[name].default == default, name
    assert [name for name, option in found.items() if not option.help or "See `" in option.help] == []


def test_what_a_rendered_dataset_cannot_need_is_not_listed() -> None:
    assert COMMON.keys() - listed(Synthetic).keys() == {"device", "on_missing_audio", "on_damage", "on_missing"}


@pytest.mark.parametrize("dataset", [AVE, TAU, Clips, Sharded])
def test_python_refuses_what_is_misspelt(dataset: Any) -> None:
    with pytest.raises(TypeError, match="batch_sze"):
        dataset("somewhere", batch_sze=3)
