"""Everything avzoo raises on purpose.

```
AvzooError
├── UnknownModelError   a name that no registry entry has
├── DataNotFoundError   a dataset, a file or weights that should be on disk and are not
├── AnnotationError     a label file that cannot be read as written (file and line are named)
├── MediaError          a video or sound that is missing a stream, broken or cut short
├── ClassMismatchError  two label orders that should be the same and are not
├── BundleError         a checkpoint that is damaged, tampered with or of another make
└── HubError            the Hugging Face Hub said no, or could not be reached
```

Each is a `ValueError` too: the caller gave something that cannot be used. A message says what was
given, what was expected and what to do. Imports nothing but the standard library.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable

# What messages call an argument of the library, and the flag that commands have for it.
FLAGS = {
    'on_missing_audio="silence"': "--on-missing-audio silence",
    'on_damage="pad"': "--on-damage pad",
    "data.on_missing: skip": "--on-missing skip",
    "audio_path=": "--audio",
    'modality="visual"': "--modality visual",
}


class AvzooError(ValueError):
    """The root of every error that avzoo raises on purpose."""


class UnknownModelError(AvzooError):
    """A model name that no registry entry has."""


class DataNotFoundError(AvzooError):
    """A dataset, a file or weights that should be on disk and are not."""


class AnnotationError(AvzooError):
    """A label file that cannot be read as written; the message names file and line."""


class MediaError(AvzooError):
    """A video or sound that is missing a stream, broken or cut short."""


class ClassMismatchError(AvzooError):
    """Two label orders that should be the same and are not."""


class BundleError(AvzooError):
    """A checkpoint that is damaged, tampered with or of another make."""


class HubError(AvzooError):
    """The Hugging Face Hub said no, or could not be reached."""


def check_choice(name: str, given: object, allowed: Collection[object]) -> None:
    """Refuse a value that is not among those allowed.

    Raises:
        AvzooError: If it is not.

    >>> check_choice("loss", "hinge", ("bce", "ce"))
    Traceback (most recent call last):
    avzoo.errors.AvzooError: loss is 'hinge', expected one of ('bce', 'ce')
    """
    if given not in allowed:
        raise AvzooError(f"{name} is {given!r}, expected one of {allowed}")


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The nearest right spelling as the tail of a sentence, or an empty string.

    >>> did_you_mean("avsdn-avmix", ["avsdn-ave", "avsdn-avemix"])
    "; did you mean 'avsdn-avemix'?"
    >>> did_you_mean("resnet", ["avsdn-ave"])
    ''
    """
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.lower(), names, n=1, cutoff=0.6)
    return f"; did you mean {names[near[0]]!r}?" if near else ""


def as_flags(message: str, *, without: Collection[str] = ()) -> str:
    """A message of the library with its arguments as flags of a command.

    Args:
        message: What is said in Python.
        without: Values of `FLAGS` that the command lacks; advice to use them is left out.

    >>> message = 'no sound; on_missing_audio="silence" reads silence, modality="visual" does without'
    >>> as_flags(message)
    'no sound; --on-missing-audio silence reads silence, --modality visual does without'
    >>> as_flags(message, without=["--modality visual"])
    'no sound; --on-missing-audio silence reads silence'
    """
    for argument, flag in FLAGS.items():
        if flag in without:
            message = re.sub(rf", {re.escape(argument)}[^,;\n]*", "", message)
        message = message.replace(argument, flag)
    return message
