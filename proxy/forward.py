"""What all exchanges of a proxy share, and how an attempt can fail."""

from __future__ import annotations

from ..client.resolver import Resolver
from ..client.retry import Budget, Failure
from .config import ProxySettings
from .errors import DeadlineExceeded, NotFound, NoWorker, ProxyError, WorkerLost
from .head import AnswerHead
from .holding import Holding
from .links import Links
from .metrics import Metrics
from .reactor import Reactor
from .route import Route


class Failed(Exception):
    """One attempt failed. `stale`: a connection that had rested ended before the worker said a word.

    `refusal`: what the worker said, to be passed on when nobody else is there to ask.
    """

    def __init__(
        self, failure: Failure, text: str, *, stale: bool = False, refusal: tuple[AnswerHead, bytes] | None = None
    ) -> None:
        super().__init__(text)
        self.failure, self.stale, self.refusal = failure, stale, refusal

    def error(self) -> ProxyError:
        if self.failure is Failure.TIMEOUT:
            return DeadlineExceeded("the worker did not answer in time")
        return WorkerLost(f"the worker was lost, and no other one could take the upload: {self}")


class Forwarder:
    """What all exchanges share."""

    def __init__(self, settings: ProxySettings, resolver: Resolver, reactor: Reactor, metrics: Metrics) -> None:
        self.metrics = metrics
        self.settings, self.resolver, self.reactor = settings, resolver, reactor
        self.links = Links(reactor)
        self.holding = Holding(settings.replay_bytes, settings.held_bytes, settings.splice)
        self.budget, self.requests = Budget(), 0  # since the budget was last asked
        self.draining = False  # answers then say that their connection ends

    def close(self) -> None:
        self.links.close()
        self.holding.close()


def no_worker(route: Route, resolver: Resolver) -> ProxyError:
    """503 for a service that ought to be there; 404 for a name that nobody ever registered."""
    known = sorted(resolver.services())
    if route.named and route.service not in known and known:
        return NotFound(f"no service is called {route.service!r}; there are {', '.join(known)}")
    return NoWorker(f"no worker serves {route.service!r} at the moment; try again in a second")
