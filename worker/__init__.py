"""One model, served.

Nouns: a `Card` says how an upload becomes the model's input and what its outputs are called; a *runtime* loads a *model*
whose `predict(batch)` gives scores; the `Engine` runs it in threads of its own; *listeners* are the doors, and `wire` the
protocols they speak; a `Prediction` is labels with scores, best first. Heavy libraries are imported only where they work.
"""

from .tensor import Prediction

__all__ = ["Prediction"]
