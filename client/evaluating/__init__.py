"""How good a served model is: labelled pictures are sent to it, one by one, and its answers are counted.

Nouns: *sample* (seeded, without replacement), *endpoint* (who is asked, and in which form), *evaluation* (accuracy with its
interval, confusions, latencies). `eval_serving_performance` and `eval_throughput` are the EMNIST post's.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .emnist import eval_serving_performance, eval_throughput

__all__ = ["eval_serving_performance", "eval_throughput"]


def __getattr__(name: str) -> object:
    """Whoever only reads the settings does without NumPy."""
    if name in __all__:
        from . import emnist

        return getattr(emnist, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
