"""The bundle format: the files of a checkpoint, and the checks before one is loaded.

```
config.json          format, class, its arguments, classes, preprocess, backbones, versions, and a manifest
model.safetensors    the weights (float16 where the answers stay the same); frozen backbones are named, not stored
recipe.yaml          the recipe as resolved
golden.safetensors   audio, visual -> logits                           from here on a bundle may lack them;
golden.mp4           a clip of our generator, for the whole path from media to scores    a published one has all
README.md            the card
timeline.png         the golden clip's picture
```

A folder is written under a temporary name and renamed. Reading trusts nothing: no other kind of file is opened, size
and sha256 are compared, the class comes from a literal dict, the network is built on the meta device and its tensors
compared with the file's header before any is read. No pickle is ever opened.
"""

from __future__ import annotations

from avzoo.bundle.files import FILES, FORMAT, REQUIRED, check_replaceable, manifest
from avzoo.bundle.golden import GOLDEN_TOLERANCE, golden_difference
from avzoo.bundle.reading import read, read_config
from avzoo.bundle.training import load_training_checkpoint, read_training_checkpoint, training_facts
from avzoo.bundle.writing import copy, write

__all__ = [
    "FILES",
    "FORMAT",
    "GOLDEN_TOLERANCE",
    "REQUIRED",
    "check_replaceable",
    "copy",
    "golden_difference",
    "load_training_checkpoint",
    "manifest",
    "read",
    "read_config",
    "read_training_checkpoint",
    "training_facts",
    "write",
]
