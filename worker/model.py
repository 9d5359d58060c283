"""A model that is served: one version of it, loaded by an engine of the shelf, with the card that tells what it sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .card import Card
    from .tensor import Signature
    from .tuning import Wish


class Loaded(Protocol):
    """A model in a runtime's memory.

    `run` may be called by several threads at once, up to `streams`: then each call computes on one core. `wide`: this call
    is the only one, and may use all cores. Where a runtime knows no difference, it ignores it.
    """

    runtime: str
    signatures: Mapping[str, Signature]
    default: str  # the name of the signature that is meant when none is said
    streams: int

    def run(self, inputs: Mapping[str, NDArray[Any]], signature: str, wide: bool = False) -> dict[str, NDArray[Any]]:
        """Arrays of the signature's dtypes and shapes in, all of its outputs out. Raises whatever the runtime raises."""
        ...

    def close(self) -> None:
        """Gives back what it holds. Nobody runs it any more."""
        ...


@dataclass(eq=False)
class Model:
    """`version`: 1 for a model that has none.

    `card`: how a picture becomes an item of `image_input`, and what `scores`, of shape (n, classes), are called; None for a
    model that takes tensors only; `reason` then says what would have to be added. Both are of the default signature.
    `wish`: how its items are to come together in calls, where its card says so; else the settings do.
    `report`: how the runtime was chosen, for people: fit for JSON.
    """

    name: str
    version: int
    loaded: Loaded
    card: Card | None = None
    image_input: str = ""
    scores: str = ""
    reason: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    wish: Wish | None = None

    def __repr__(self) -> str:
        return f"<Model {self.name}/{self.version} [{self.loaded.runtime}]>"
