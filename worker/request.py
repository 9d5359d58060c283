"""A request on its way through the engine, and what it comes back as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import call

if TYPE_CHECKING:
    import asyncio

    from numpy.typing import NDArray

    from .lane import Batching, Job, Lane
    from .metrics import Counts
    from .model import Model
    from .tensor import Signature
    from .tuning import Plan


# Engines that compute what a file lists; loops in it are rare, and a call that takes long is noticed. What Python's code
# does, nobody can tell from what it did before.
EVEN = ("litert", "onnx", "openvino")


@dataclass(slots=True)
class Answer:
    """`outputs`: all of a signature's, by name; of pictures `scores`, (n, classes) float32.

    `queue`, `decode`, `infer`: seconds; of several pieces the longest. `batch`: items in the call of the model.
    """

    outputs: dict[str, NDArray[Any]]
    queue: float
    decode: float
    infer: float
    batch: int
    counts: Counts | None = None  # of the model that gave it


class Served:
    """A model, and what it needs to be served.

    `seconds`: what a call of one item took of late. `even`: it always takes about as long.
    """

    __slots__ = ("batchings", "counts", "emptied", "even", "lane", "model", "open", "plan", "seconds", "signature")

    def __init__(self, model: Model, plan: Plan, lane: Lane, batchings: dict[str, Batching], counts: Counts) -> None:
        self.model, self.plan, self.lane, self.batchings, self.counts = model, plan, lane, batchings, counts
        self.signature = model.loaded.signatures[model.loaded.default]
        self.open: set[Request] = set()
        self.seconds, self.even = plan.seconds, model.loaded.runtime.partition("-")[0] in EVEN
        self.emptied: asyncio.Future[None] | None = None  # awaited by who takes the model out


class Request:
    """`pictures`: uploads, not tensors. `stacked`: its items stand in a dimension of their own.

    `left`: pieces that are not answered. `over`: its answer is known, or nobody wants it any more.
    """

    __slots__ = (
        "answers", "batch", "deadline", "decode", "future", "infer", "jobs", "left", "over", "pictures", "queue", "served",
        "signature", "stacked",
    )  # fmt: skip

    def __init__(
        self,
        served: Served,
        signature: Signature,
        deadline: float,
        future: asyncio.Future[Answer],
        *,
        pictures: bool,
        stacked: bool,
    ) -> None:
        self.served, self.signature, self.deadline, self.future = served, signature, deadline, future
        self.pictures, self.stacked = pictures, stacked
        self.jobs: list[Job] = []
        self.answers: list[Any] = []  # of its jobs, each at its place
        self.left = 0
        self.over = False
        self.queue = self.decode = self.infer = 0.0
        self.batch = 0

    def answer(self) -> Answer:
        """Put together from those to its pieces. Raises ModelError if they make none."""
        pieces = self.answers
        if self.signature.batch is None and self.stacked and not self.pictures:
            pieces = [{name: array[None] for name, array in piece.items()} for piece in pieces]
        return Answer(call.joined(pieces), self.queue, self.decode, self.infer, self.batch, self.served.counts)
