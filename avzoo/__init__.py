"""avzoo: a PyTorch Lightning model zoo for audio-visual scenes and events.

```python
import avzoo

model = avzoo.load("avsdn-avemix")
result = avzoo.predict("clip.mp4", model)
for event in result.events:
    print(event.start, event.end, event.label, event.probability)
```

Importing avzoo imports neither torch nor Lightning: every public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from avzoo.clip import Clip
    from avzoo.errors import AvzooError
    from avzoo.explaining import explain
    from avzoo.finetuning import finetune
    from avzoo.hub import load
    from avzoo.inference import predict
    from avzoo.prediction import Prediction
    from avzoo.publishing import publish
    from avzoo.registry import list_models
    from avzoo.streaming import stream

__version__ = "0.1.0"
__all__ = [
    "AvzooError",
    "Clip",
    "Prediction",
    "__version__",
    "explain",
    "finetune",
    "list_models",
    "load",
    "predict",
    "publish",
    "stream",
]

_HOME = {
    "AvzooError": "avzoo.errors",
    "Clip": "avzoo.clip",
    "Prediction": "avzoo.prediction",
    "explain": "avzoo.explaining",
    "finetune": "avzoo.finetuning",
    "list_models": "avzoo.registry",
    "load": "avzoo.hub",
    "predict": "avzoo.inference",
    "publish": "avzoo.publishing",
    "stream": "avzoo.streaming",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'avzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
