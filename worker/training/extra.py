"""The `training` extra: TensorFlow takes seconds to be imported, so that is done late; what is missing is said."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..errors import ConfigurationError


@contextlib.contextmanager
def needing_tensorflow() -> Iterator[None]:
    """Imports in it that fail say what to install."""
    try:
        from ..runtimes import tensorflow_graphs  # noqa: F401  (before Keras: it knows how to keep TensorFlow quiet)

        yield
    except ImportError as error:
        raise ConfigurationError(
            f"training needs more than is installed ({error.name} is missing): pip install 'fairway[training]'"
        ) from error
