"""Real video files with sound, rendered from a seed: what tests, demo and benchmarks run on.

```
datasets                the three layouts
├── events              scripts of what is heard and seen, and films of them
│   ├── looks, places   how the event classes look and where (drawn on canvas)
│   └── sounds          how they sound
├── scenes              the ten TAU scenes: scene_looks, scene_sounds
└── mp4                 encoding
```

Imports no torch: worker processes start fast.
"""

from avzoo.data.rendering.datasets import VERSION, write_ave, write_clips, write_tau
from avzoo.data.rendering.events import BACKGROUND, CLASSES, Script, render, script
from avzoo.data.rendering.scenes import SCENES, Take, film

__all__ = [
    "BACKGROUND",
    "CLASSES",
    "SCENES",
    "VERSION",
    "Script",
    "Take",
    "film",
    "render",
    "script",
    "write_ave",
    "write_clips",
    "write_tau",
]
