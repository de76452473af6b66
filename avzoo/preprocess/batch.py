"""What the signal path makes of a clip, `Sample`, and of many, `Batch`; batches of pictures and of sounds alone."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Sample(NamedTuple):
    """The input of a model from one clip: sound and picture by segment, in the shapes that `avzoo.preprocess` draws.

    Attributes:
        audio: Float32 `[segments, ...]`; None where the sound was not read.
        visual: Float32 or uint8 `[segments, ...]`; None where the pictures were not read.
    """

    audio: Tensor | None
    visual: Tensor | None


class Batch(NamedTuple):
    """What a datamodule hands to a model: the only thing the two know of each other.

    Attributes:
        audio: Float32 `[batch, segments, ...]`.
        visual: Float32 or uint8 `[batch, segments, ...]`.
        label: Int64 `[batch]` (clip task) or `[batch, segments]` (segment task), an index into the classes.
        id: The clips' ids.
        seeds: Int64 `[batch, segments, frames]`, the seeds of the pictures' augmentation, 0 for none; the datamodule
            applies them on the device and hands None to the model.
        weight: What its loss counts among those of all processes: 1 where each has the same share of a batch, 0 for a
            row that stands in where a process has none.
    """

    audio: Tensor
    visual: Tensor
    label: Tensor
    id: list[str]
    seeds: Tensor | None = None
    weight: float = 1.0


class PictureBatch(NamedTuple):
    """A training batch of an image backbone.

    Attributes:
        images: Uint8 `[batch, 3, size, size]`.
        label: Int64 `[batch]`.
        weight: See `Batch`.
    """

    images: Tensor
    label: Tensor
    weight: float = 1.0


class SoundBatch(NamedTuple):
    """A training batch of the sound encoder.

    Attributes:
        mel: Log-mel `[batch, 1, mels, frames]`, one second each, by `avzoo.audio_encoder.FRONT_END`.
        label: Int64 `[batch]`: which sound it is, or -1 where nobody has said.
    """

    mel: Tensor
    label: Tensor
