"""`avzoo export NAME --onnx out.onnx`: the network behind the frozen backbones for other runtimes."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Example:\n"
        "  avzoo export avsdn-avemix --onnx avsdn.onnx\n\n"
        "The file reads what the signal path makes of sound and pictures, not videos;\n"
        "its answers are compared with torch's before it is kept.\n"
        "Needs: pip install 'avzoo[onnx]'"
    )
    parser.add_argument("name", help="a name of `avzoo list`, hf:owner/repo@commit, or a folder")
    parser.add_argument("--revision", metavar="COMMIT", help="of its Hugging Face repository, not the listed one")
    parser.add_argument("--onnx", type=Path, required=True, metavar="OUT.onnx", help="the file to write")


def run(options: argparse.Namespace) -> None:
    """Export with the golden features as the example."""
    from safetensors.torch import load_file

    from avzoo import export, hub, registry

    located = hub.locate(registry.parse_ref(options.name, paths=True), options.revision)
    model = located.read()
    model.name = options.name
    golden = load_file(located.folder / "golden.safetensors")
    difference = export.export_onnx(model, golden["audio"], golden["visual"], options.onnx)
    sizes = " and ".join(map(str, export.BATCHES))
    print(
        f"{options.onnx}: {options.onnx.stat().st_size / 1e6:.1f} MB, any batch size, {len(golden['audio'])} segments"
    )
    print(f"onnxruntime and torch differ by {difference:.2g} at batch sizes {sizes}")
