"""The one path that applies the numbers: `read_window` reads what they ask for, `Preprocessor` makes features of it."""

from __future__ import annotations

import functools
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from avzoo import audio, backbones
from avzoo.augment import augment
from avzoo.clip import Clip, read_clip
from avzoo.errors import AvzooError
from avzoo.preprocess.batch import Sample
from avzoo.preprocess.numbers import Preprocess


def read_window(
    path: str | Path | Clip,
    preprocess: Preprocess,
    *,
    start: float = 0.0,
    audio_path: str | Path | None = None,
    on_missing_audio: Literal["error", "silence"] = "error",
    on_damage: Literal["error", "pad"] = "error",
    audio: bool = True,
    visual: bool = True,
) -> Clip:
    """Read the window of a file that begins at `start` s, as `Preprocessor` wants it.

    Args:
        path: The video, or where no pictures are wanted any file with sound; or a clip, which is cut as a file is.
        preprocess: Says which instants are looked at, and how long a window is.
        start: Where the window begins, s.
        audio_path: The sound of a silent video.
        on_missing_audio: See `avzoo.clip.read_clip`.
        on_damage: See `avzoo.clip.read_clip`.
        audio: Whether the sound is wanted.
        visual: Whether the pictures are wanted.

    Raises:
        DataNotFoundError: If the file is not there.
        MediaError: If it cannot be read, see `avzoo.clip.read_clip`.
    """
    return read_clip(
        path,
        times=preprocess.frame_times() if visual else (),
        seconds=preprocess.seconds,
        start=start,
        audio=audio,
        audio_path=audio_path,
        on_missing_audio=on_missing_audio,
        on_damage=on_damage,
    )


class Preprocessor:
    """Turns clips into samples, by the numbers of a `Preprocess`.

    The backbones are built on the first call and stay in memory, frozen. This is no `nn.Module` on purpose: a model
    that owns one neither trains nor stores the backbones.

    Args:
        preprocess: The numbers.
        device: Where the backbones run.
    """

    def __init__(self, preprocess: Preprocess, device: str | torch.device = "cpu") -> None:
        self.preprocess = preprocess
        self.device = torch.device(device)

    def __call__(self, clip: Clip, *, audio: bool = True, visual: bool = True) -> Sample:
        """Turn one clip of `preprocess.seconds` into a sample on `device`.

        Args:
            clip: What `read_window` gave.
            audio: Whether the sound is wanted.
            visual: Whether the pictures are wanted.

        Raises:
            AvzooError: If the clip's length or number of frames is not that of the window.
        """
        return Sample(self.audio(clip) if audio else None, self.visual(clip) if visual else None)

    @torch.no_grad()
    def audio(self, clip: Clip) -> Tensor:
        """The sound of every segment, `[segments, ...]`, by `audio_kind`."""
        p = self.preprocess
        expected = round(p.seconds * clip.sample_rate)
        if clip.waveform.shape[-1] != expected:
            raise AvzooError(
                f"{clip.id}: {clip.waveform.shape[-1]} samples at {clip.sample_rate} Hz, expected {expected}"
                f" ({p.seconds:g} s); read it with read_clip(..., seconds={p.seconds:g})"
            )
        waveform = clip.waveform.to(self.device)
        if p.audio_kind == "log_mel":
            embedded: Tensor = self._audio_backbone(self.log_mel(waveform, clip.sample_rate))
            return embedded
        if p.audio_kind == "gammatone":
            return self.gammatone(waveform, clip.sample_rate)
        return self.long_term(waveform, clip.sample_rate)

    def log_mel(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Log-mel spectrograms by segment, `[segments, 1, mels, frames]`, of `[channels, samples]`."""
        p = self.preprocess
        segments = self._segments(audio.resample(audio.mono(waveform), sample_rate, p.sample_rate))
        bank = audio.mel_bank(
            sample_rate=p.sample_rate, n_fft=p.n_fft, n_mels=p.mels, f_min=p.f_min, f_max=p.f_max, linear_in="mel"
        ).to(self.device)
        spectrogram = audio.log_mel(
            segments, bank, n_fft=p.n_fft, win_length=p.window, hop_length=p.hop, offset=p.log_offset
        )
        return spectrogram[:, None, :, : p.frames]

    def gammatone(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Gammatone levels of left, right and left - right by segment, dB, `[segments, 3, bands, columns]`."""
        p = self.preprocess
        levels = audio.binaural_gammatone(
            audio.resample(waveform, sample_rate, p.sample_rate),
            sample_rate=p.sample_rate,
            window=p.window,
            hop=p.hop,
            bands=p.bands,
            f_min=p.f_min,
            f_max=p.f_max,
            floor=p.log_offset,
            columns=p.segments * p.frames,
        )
        return levels.reshape(3, p.bands, p.segments, p.frames).permute(2, 0, 1, 3)

    def long_term(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Long-term spectra of average and difference by segment, `[segments, frames, 2, bands]`."""
        p = self.preprocess
        if p.audio_kind == "fbank":
            bank = audio.fbank_bank(p.bands, n_fft=p.n_fft, sample_rate=p.sample_rate, f_min=p.f_min, f_max=p.f_max)
        else:
            bank = audio.scalogram_bank(bank=p.bank or "scatnet", filters=p.bands, n_fft=p.n_fft)
        pair = audio.average_difference(audio.resample(waveform, sample_rate, p.sample_rate))
        cut = pair if p.clip_stft else self._segments(pair)
        spectra = audio.long_term_spectrum(
            cut, bank.to(self.device), n_fft=p.n_fft, window=p.window, hop=p.hop, offset=p.log_offset
        )
        if not p.clip_stft:  # [2, segments, bands, frames]
            return spectra.permute(1, 3, 0, 2)[:, : p.frames]
        seconds = audio.frame_seconds(spectra.shape[-1], window=p.window, hop=p.hop, sample_rate=p.sample_rate)
        return _by_segment(spectra.permute(2, 0, 1), seconds, p.segments)

    def _segments(self, waveform: Tensor) -> Tensor:
        """`[..., samples]` as `[..., segments, samples]`; what is left over is dropped."""
        length = waveform.shape[-1] // self.preprocess.segments
        whole = waveform[..., : self.preprocess.segments * length]
        return whole.reshape(*waveform.shape[:-1], self.preprocess.segments, length)

    @torch.no_grad()
    def visual(self, clip: Clip, seeds: Tensor | None = None) -> Tensor:
        """The pictures of every segment, `[segments, ...]`, by `visual_kind`.

        Args:
            clip: What `read_window` gave.
            seeds: Int64 `[frames]`, of the pictures' augmentation, see `avzoo.augment`; None for none.
        """
        p = self.preprocess
        images = self.images(clip)
        if seeds is not None:
            images = augment(images, seeds)
        if p.visual_kind == "image":
            return images.reshape(p.segments, -1, *images.shape[1:])
        features: Tensor = self.visual_backbone(normalise(images, p)).reshape(p.segments, p.pictures, -1)
        return features if p.visual_kind == "frame" else features.mean(1)

    def images(self, clip: Clip) -> Tensor:
        """The pictures, resized, uint8 `[frames, 3, size, size]`."""
        from torchvision.transforms.v2 import functional as F

        p = self.preprocess
        expected = len(p.frame_times())
        if len(clip.frames) != expected:
            raise AvzooError(f"{clip.id}: {len(clip.frames)} frames, expected {expected} ({p.fps:g} a second)")
        frames = clip.frames.to(self.device)
        if frames.shape[-2:] != (p.size, p.size):
            frames = F.resize(frames, [p.size, p.size], F.InterpolationMode(p.interpolation), antialias=True)
        return frames

    def build(self, modalities: Collection[str]) -> None:
        """Build the backbones of some modalities, which their first clip would do.

        Raises:
            AvzooError: If one has no weights here, see `backbones.build`.
        """
        if "audio" in modalities and self.preprocess.audio_backbone:
            self._audio_backbone  # noqa: B018 - kept once it was asked for
        if "visual" in modalities and self.preprocess.visual_kind != "image":
            self.visual_backbone  # noqa: B018

    @functools.cached_property
    def _audio_backbone(self) -> torch.nn.Module:
        return backbones.build(self.preprocess.audio_backbone).to(self.device)

    @functools.cached_property
    def visual_backbone(self) -> torch.nn.Module:
        """The frozen image network, for the kinds that read features."""
        return backbones.build(self.preprocess.visual_backbone, self.preprocess.pool).to(self.device)


def normalise(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Pictures `[..., 3, size, size]`, uint8, as their backbone wants them: float32, by `mean` and `std`."""
    mean = torch.tensor(preprocess.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(preprocess.std, device=images.device).view(3, 1, 1)
    return (images.float() / 255 - mean) / std


def _by_segment(frames: Tensor, segment: Tensor, segments: int) -> Tensor:
    """Frames `[frames, ...]` sorted into `[segments, most, ...]`; places that stay empty are NaN."""
    counts = torch.bincount(segment, minlength=segments)
    sorted_ = frames.new_full((segments, int(counts.max()), *frames.shape[1:]), torch.nan)
    for index in range(segments):
        sorted_[index, : counts[index]] = frames[segment == index]
    return sorted_
