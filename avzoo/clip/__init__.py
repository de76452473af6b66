"""Media files in, tensors out: `read_clip` returns the pictures at the wanted instants and the sound of one window.

PyAV reads containers, soundfile reads WAV, FLAC and OGG. How a window of a container is read:

1. seek to the keyframe before the window and demux up to its end, without decoding (a long file is never read whole);
2. compute from the packets' timestamps which picture is on screen at each wanted instant;
3. feed the decoder the groups of pictures that hold one, each up to its last wanted picture in decode order, and let it
   drop the unwanted pictures that no other picture refers to;
4. convert the wanted pictures to RGB, and nothing else.

The result equals sequential decoding bit for bit. Where a timestamp is missing or double, or a wanted picture did not
come, the window is decoded sequentially instead (`DecodeStats.fallback` says why).

**Time zero** of a file is the start of the first thing shown or heard; sound that leads the first picture by less than
0.1 s (encoder priming) does not count. **The picture at t** is the one on screen: the last that starts at or before t.

| file             | what it is for                                                                    |
|------------------|-----------------------------------------------------------------------------------|
| `reading.py`     | `read_clip`: a window of a file, of two (a silent video and its sound), of a clip |
| `probing.py`     | `probe`: length and streams of a file                                             |
| `window.py`      | what is asked for, and what comes back: `Clip`                                    |
| `arrays.py`      | checks the arrays that `Clip.of` takes                                            |
| `files.py`       | what is known before a file is opened                                             |
| `container.py`   | an open container: streams, clocks, lengths, decoders                             |
| `plan.py`        | steps 1 to 3: which packets to read, and which of them to decode                  |
| `pictures.py`    | steps 3 and 4: decoding the pictures                                              |
| `sound.py`       | the sound of a container                                                          |
| `sound_files.py` | WAV, FLAC and OGG                                                                 |
"""

from avzoo.clip.files import SOUND_SUFFIXES, VIDEO_SUFFIXES
from avzoo.clip.probing import MediaInfo, probe
from avzoo.clip.reading import read_clip
from avzoo.clip.window import Clip, DecodeStats

__all__ = ["SOUND_SUFFIXES", "VIDEO_SUFFIXES", "Clip", "DecodeStats", "MediaInfo", "probe", "read_clip"]
