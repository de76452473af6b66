"""A model as an ONNX file: features in, scores out, for any batch size; checked against torch before it is kept."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor

from avzoo.errors import AvzooError, BundleError
from avzoo.files import whole
from avzoo.models import AVModule

TOLERANCE = 1e-4  # of logits, between onnxruntime and torch
BATCHES = (1, 3)  # sizes that are compared; neither is the one it is traced with


def export_onnx(model: AVModule, audio: Tensor, visual: Tensor, out: str | Path) -> float:
    """Write the network behind the frozen backbones as ONNX, with labels and signal path in its metadata.

    The number of segments is fixed: with a free one the exporter silently keeps that of the example all the same,
    because of the recurrent layers. The batch size is free.

    Args:
        model: In eval mode, on the CPU.
        audio: Features of one clip, `[segments, ...]`.
        visual: Features of one clip, `[segments, ...]`.
        out: The file; it appears only when it answers as the model does.

    Returns:
        The largest difference between the logits of onnxruntime and torch.

    Raises:
        AvzooError: If the extra `onnx` is not installed.
        BundleError: If the exported network answers otherwise.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter asks for it later, by another message
    except ImportError as error:
        raise AvzooError(f"exporting needs {error.name}: pip install 'avzoo[onnx]'") from error
    out = Path(out)
    batch = torch.export.Dim("batch")
    with whole(out) as unfinished:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # the exporter's own, about itself
            program = torch.onnx.export(
                model,
                (torch.stack([audio] * 2), torch.stack([visual] * 2)),
                dynamo=True,
                verbose=False,
                input_names=["audio", "visual"],
                output_names=["logits"],
                dynamic_shapes={"audio": {0: batch}, "visual": {0: batch}},
            )
        if program is None:
            raise BundleError(f"{model.name}: torch gives no ONNX program")
        program.model.metadata_props.update(
            {
                "name": model.name,
                "task": model.task,
                "classes": json.dumps(model.classes),
                "preprocess": json.dumps(model.preprocess.to_dict()),
            }
        )
        program.save(unfinished)
        session = onnxruntime.InferenceSession(unfinished, providers=["CPUExecutionProvider"])
        difference = max(_difference(session, model, audio, visual, size) for size in BATCHES)
        if not difference <= TOLERANCE:
            raise BundleError(f"{out}: onnxruntime answers otherwise than torch, logits differ by {difference:.2g}")
    return difference


@torch.no_grad()
def _difference(session: object, model: AVModule, audio: Tensor, visual: Tensor, size: int) -> float:
    """On a batch of clips that are not alike: the example, scaled."""
    scale = torch.linspace(1.0, 0.5, size)
    clips = {"audio": torch.stack([audio * s for s in scale]), "visual": torch.stack([visual * s for s in scale])}
    (logits,) = session.run(None, {name: value.numpy() for name, value in clips.items()})  # type: ignore[attr-defined]
    return float((torch.from_numpy(logits) - model(**clips)).abs().max())
