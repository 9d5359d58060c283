"""What became of each request: counted, and written down where that is wanted."""

from __future__ import annotations

import os
import time

from .access_log import AccessLog, Entry
from .config import ProxySettings
from .exchange import Exchange
from .head import RequestHead
from .metrics import Metrics
from .route import Route
from .tracing import Span, Tracer, open_tracer

GONE = 499  # nginx's word for a client that did not wait


class Accounts:
    """`request_id` and `begin` for what is sent on; `settle` when it is over."""

    def __init__(self, settings: ProxySettings, metrics: Metrics) -> None:
        self.metrics = metrics
        self.log: AccessLog | None = AccessLog(settings.access_log) if settings.access_log != "none" else None
        self.tracer: Tracer | None = open_tracer(os.environ, "https" if settings.tls_cert else "http")

    def settle(
        self, peer: str, head: RequestHead | None, found: Route | None, exchange: Exchange | None,
        status: int, sent: int, seconds: float, request_id: bytes, span: Span | None,
    ) -> None:  # fmt: skip
        """`seconds`: from its head to its answer's end. `sent`: bytes of an answer of our own."""
        service = "" if found is None else found.service
        worker, received, retries = "", 0, 0
        if exchange is not None:
            worker, received, sent, retries = (
                exchange.worker,
                exchange.received,
                exchange.sent or sent,
                exchange.retries,
            )
            self.metrics.received += received
        self.metrics.sent += sent
        self.metrics.answered(service, worker, status, seconds)
        if span is not None:
            span.end(status, worker, retries, service)
        if self.log is not None:
            method, target, http11 = (b"", b"", True) if head is None else (head.method, head.target, head.http11)
            self.log.write(
                Entry(
                    time.time() - seconds, peer, method, target, status, received, sent, seconds, service, worker, retries,
                    request_id, "HTTP/1.1" if http11 else "HTTP/1.0",
                )
            )  # fmt: skip

    def close(self) -> None:
        """Blocks until the last lines and spans are out, for a bounded time."""
        if self.log is not None:
            self.log.close()
        if self.tracer is not None:
            self.tracer.close()
