"""The shelf of engines: name -> where its `load` is. Imported only when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..card import Card
    from ..config import WorkerSettings

RUNTIMES = {"tensorflow": ".tensorflow"}


class Model(Protocol):
    """A loaded model. `predict` is called from one thread at a time."""

    name: str
    version: str
    card: Card

    def predict(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """(n, *item) as `image.to_array` makes items -> (n, classes) scores in label order."""
        ...


def load(settings: WorkerSettings, threads: int) -> Model:
    """Loads and checks `settings.model`. Raises ConfigurationError saying what to do."""
    if settings.runtime not in (*RUNTIMES, "auto"):
        raise ConfigurationError(f"--runtime {settings.runtime}: expected one of {', '.join(RUNTIMES)}")
    try:
        runtime = import_module(RUNTIMES.get(settings.runtime, ".tensorflow"), __name__)
    except ImportError as error:
        raise ConfigurationError(
            f"the {settings.runtime} runtime is not installed ({error.name} is missing): "
            f"pip install 'fairway[{settings.runtime}]'"
        ) from error
    model: Model = runtime.load(settings, threads)
    return model
