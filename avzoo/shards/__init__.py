"""Shards: a dataset in plain tar files with an index, read by row from a disk or from any URL that fsspec knows.

```
DIR/shards.json           what is packed, of which signal path, the sizes of the shards, the hash of the index
DIR/index.safetensors     columns, one row an item, memory-mapped: two million rows open at once
DIR/train-000000.tar      records, one after the other; each the members KEY.json, KEY.mp4 or KEY.audio.npy, ...
```

A record is a run of bytes of its shard; the index knows where it begins, its length and its sha256, so that any row is
one read. What a record holds is its `content`:

* clips: the media file as it is, and that of the sound where it is another (`mp4`, `wav`, ...);
* frames: the pictures that the recipe looks at, resized, and the sound: `frames.npy` `[time, size, size, 3]` uint8,
  `audio.npy` `[channels, samples]` float32;
* features: `audio.npy` and `visual.npy` `[segments, ...]`, further views of training pictures in `visual.1.npy`, ...

Any other program reads them as WebDataset. `avzoo.data.packing` writes them, `avzoo.data.Sharded` trains from them.
"""

from avzoo.shards.reading import Shards

__all__ = ["Shards"]
