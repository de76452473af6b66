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
    from avzoo.errors import AvzooError
    from avzoo.finetuning import finetune
    from avzoo.hub import load
    from avzoo.inference import Prediction, predict
    from avzoo.publishing import publish
    from avzoo.registry import list_models

__version__ = "0.1.0"
__all__ = ["AvzooError", "Prediction", "__version__", "finetune", "list_models", "load", "predict", "publish"]

_HOME = {
    "AvzooError": "avzoo.errors",
    "Prediction": "avzoo.inference",
    "finetune": "avzoo.finetuning",
    "list_models": "avzoo.registry",
    "load": "avzoo.hub",
    "predict": "avzoo.inference",
    "publish": "avzoo.publishing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'avzoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
