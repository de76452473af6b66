"""Who may import whom. Dependencies point down only; models and data never import one another."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "avzoo"

# The picture: every room with the rooms right below it. A room may import itself and all that its arrows lead to;
# everything may import `errors` and `files`. The top level (cli, commands, training, __main__) may import everything.
ARROWS: dict[str, set[str]] = {
    "publishing": {"inference", "card", "data"},  # runs the whole path once: a rendered clip, its answer, its picture
    "streaming": {"inference", "live"},
    "explaining": {"inference"},
    "app": {"explaining"},
    "embedding": {"inference", "data"},  # reads the labels of a dataset's layout
    "inference": {"hub", "prediction"},
    "prediction": {"notebook"},
    "notebook": {"plot", "audio"},
    "plot": {"clip"},  # of predictions it knows no more than their types
    "live": {"clip"},
    "train": {"data.base", "models.base", "registry", "init_from", "plot", "data.packing"},  # of one training
    "init_from": {"hub"},
    "finetuning": {"train", "data"},
    "checking": {"data"},
    "hub": {"registry", "bundle"},
    "card": {"registry", "bundle"},
    "export": {"models"},
    "bundle": {"models", "provenance"},
    "models": {"models.base"},
    "models.base": {"preprocess", "metrics", "provenance"},
    "data": {"data.base", "data.rendering", "shards"},
    "data.packing": {"data.base", "shards"},
    "shards": {"preprocess"},  # packed datasets: their format, and how they are read from anywhere
    "data.base": {"data.features", "data.column", "data.loading", "parts"},
    "data.column": set(),  # one modality of many clips
    "data.loading": {"preprocess"},  # of its types, the batch
    "data.features": {"preprocess"},
    "data.rendering": set(),  # numpy, Pillow and an encoder: it renders without torch
    "preprocess": {"clip", "audio", "backbones", "augment"},
    "parts": set(),  # of a job array
    "augment": set(),
    "backbones": {"audio_encoder", "registry"},
    "audio_encoder": {"audio"},
    "registry": set(),
    "provenance": set(),
    "clip": set(),
    "audio": set(),
    "metrics": set(),
    "files": set(),
    "errors": set(),
    "": set(),  # avzoo itself: its version; the public names it loads lazily are checked below
}
TOP = {"cli", "commands", "training", "__main__"}
HEAVY = ("torch", "lightning", "timm", "torchvision", "torchaudio", "torchmetrics", "av", "jsonargparse")


def modules() -> dict[str, Path]:
    """Dotted names below `avzoo`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, *, types: bool = True) -> set[str]:
    """Everything a file imports, wherever in the file: `avzoo.clip`, `torch.nn`; with `types` for type checkers too."""
    names: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            assert node.module
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def room(module: str) -> str:
    """`models.avsdn` lives in `models`, `models.base` has a room of its own."""
    parts = module.split(".")
    return next((name for n in (3, 2, 1) if (name := ".".join(parts[:n])) in ARROWS), parts[0])


def below(name: str) -> set[str]:
    """All rooms that the arrows of a room lead to."""
    return {name, "errors", "files", ""}.union(*(below(other) for other in ARROWS[name]))


def own_imports(path: Path, *, types: bool = True) -> set[str]:
    """The modules of avzoo that a file imports."""
    known = modules()
    return {
        name.removeprefix("avzoo").removeprefix(".")
        for name in imports(path, types=types)
        if name.partition(".")[0] == "avzoo" and name.removeprefix("avzoo").removeprefix(".") in known
    }


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_point_down(module: str) -> None:
    if room(module) in TOP or module == "":
        return
    assert room(module) in ARROWS, f"avzoo/{module}.py has no place in the picture yet"
    # `from avzoo.models.base import X` runs the package's __init__ too, which imports nothing beyond its own rooms
    # and what is drawn or shown is told apart by its type alone, as a prediction that draws and shows itself
    edges = {room(name) for name in own_imports(modules()[module], types=room(module) not in ("plot", "notebook"))}
    if room(module).partition(".")[0] in ("models", "data"):
        edges.discard(room(module).partition(".")[0])
    assert edges <= below(room(module)), f"avzoo.{module} imports {sorted(edges - below(room(module)))}"


def test_no_modules_import_in_a_circle() -> None:
    """Within a room, too; a package gathers its modules, and they do not ask it back."""
    asks = {
        module: {name for name in own_imports(path, types=False) if not f"{module}.".startswith(f"{name}.")} - {""}
        for module, path in modules().items()
    }
    TopologicalSorter(asks).prepare()  # raises a CycleError that names them


def test_models_and_data_never_import_one_another() -> None:
    for module, path in modules().items():
        top = module.partition(".")[0]
        tops = {name.partition(".")[0] for name in own_imports(path)}
        assert not (top == "models" and "data" in tops), module
        assert not (top == "data" and "models" in tops), module
    assert "models" not in below("data")
    assert "data" not in below("inference")


def test_only_the_top_imports_the_top() -> None:
    for module, path in modules().items():
        tops = {name.partition(".")[0] for name in own_imports(path)} & TOP
        assert not tops or room(module) in TOP, f"avzoo.{module} imports {tops}"


def test_the_shared_bases_do_not_know_their_heirs() -> None:
    rooms = {"data.column", "data.features", "data.loading"}
    assert {name for name in own_imports(PACKAGE / "data" / "base.py") if name.startswith("data")} <= {"data", *rooms}
    for name in rooms:
        assert not {other for other in own_imports(modules()[name]) if other.startswith("data")}
    assert not {name for name in own_imports(PACKAGE / "models" / "base.py") if name.startswith("models")}


@pytest.mark.parametrize("module", ["errors", "registry"])
def test_what_lists_models_imports_nothing_heavy(module: str) -> None:
    heavy = {name.partition(".")[0] for name in imports(PACKAGE / f"{module}.py")} & {*HEAVY, "numpy", "safetensors"}
    assert not heavy
    if module == "errors":
        assert {name.partition(".")[0] for name in imports(PACKAGE / "errors.py")} <= set(sys.stdlib_module_names)


READERS = {"clip", "live"}  # of files that are whole, and of what has no end yet


def test_only_the_readers_import_a_decoder() -> None:
    """What writes videos may import av, and then opens for writing only; the player's sound is written by soundfile."""
    decoders = {"av", "soundfile", "cv2", "decord", "torchcodec", "imageio", "moviepy", "librosa"}
    for module, path in modules().items():
        used = {name.partition(".")[0] for name in imports(path)} & decoders
        assert not any(name.startswith(("torchvision.io", "torchaudio.io")) for name in imports(path)), module
        if not used or room(module) in READERS:
            continue
        if module == "notebook":
            assert re.findall(r"soundfile\.(\w+)", path.read_text(encoding="utf-8")) == ["write"]
            continue
        assert used == {"av"}, f"avzoo.{module} imports {used}"
        assert module.startswith("data."), f"avzoo.{module} imports av"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        opened = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "av.open"]
        assert opened, f"avzoo.{module} imports av for nothing"
        for call in opened:
            mode = (
                call.args[1] if len(call.args) > 1 else next((k.value for k in call.keywords if k.arg == "mode"), None)
            )
            assert isinstance(mode, ast.Constant), f"avzoo.{module} opens a file for reading"
            assert mode.value == "w", f"avzoo.{module} opens a file for reading"
    assert {room(module) for module, path in modules().items() if "av" in imports(path)} >= READERS


def test_only_training_needs_the_locks_of_unix() -> None:
    """So that Windows can import the rest."""
    assert {module for module, path in modules().items() if "fcntl" in imports(path)} == {"train.runs"}


def loaded_after(code: str) -> set[str]:
    """The heavy modules that are loaded once some code has run in a new interpreter."""
    report = f"\nimport sys; print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code + report], env=here, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_the_probe_sees_a_heavy_import() -> None:
    assert "av" in loaded_after("import av")


@pytest.mark.parametrize(
    "code",
    [
        "import avzoo; assert 'load' in dir(avzoo); assert avzoo.__version__",
        "import avzoo.errors, avzoo.registry, avzoo.cli",
        "import avzoo; avzoo.AvzooError; assert 'avsdn-avemix' in avzoo.list_models()",
        "from avzoo.cli import main; main(['list'])",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(code: str) -> None:
    assert loaded_after(code) == set()


def test_every_public_name_has_a_home() -> None:
    import avzoo

    for name in avzoo.__all__:
        assert getattr(avzoo, name) is not None
    assert set(avzoo.__all__) <= set(dir(avzoo))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        avzoo.nothing  # noqa: B018


def test_no_function_takes_arbitrary_keywords_in_a_public_constructor() -> None:
    """LightningCLI reads signatures: a recipe's options are the arguments that are written down."""
    import inspect

    from avzoo.models import MODELS

    for name, model in MODELS.items():
        kinds = {p.kind for p in inspect.signature(model).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds, name
        assert next(iter(inspect.signature(model).parameters)) == "classes", name
