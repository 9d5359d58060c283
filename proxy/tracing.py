"""A span for each request, for OpenTelemetry: only where its libraries are and its environment variables say so.

Without a tracer `traceparent` and `tracestate` pass as they came, which costs nothing. With one, the worker is told the
proxy's span as its caller. Spans are sent by a thread of the library's.

Sources: https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (names and attributes of a server's span),
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .access_log import MOST_TARGET
from .trace_context import TraceContext, decode

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as Recorded
    from opentelemetry.trace import Status

log = logging.getLogger("fairway.proxy")

# What OTEL_TRACES_EXPORTER, or the protocol of `otlp`, names -> where it is.
EXPORTERS = {
    "console": "opentelemetry.sdk.trace.export:ConsoleSpanExporter",
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http.trace_exporter:OTLPSpanExporter",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter:OTLPSpanExporter",
}
SWITCHES = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
METHODS = {
    name.encode(): name
    for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY")
}
SECRET = re.compile(r"(?<=[?&])(AWSAccessKeyId|Signature|sig|X-Goog-Signature)=[^&]*")  # as the conventions say


class Span:
    """`header`: the traceparent for the worker. `new`: it begins a trace, and the caller's tracestate ends here."""

    __slots__ = ("_error", "_span", "header", "new")

    def __init__(self, span: Recorded, new: bool, error: Status) -> None:
        context = span.get_span_context()
        self.header = TraceContext(context.trace_id, context.span_id, context.trace_flags).encode()
        self.new = new
        self._span, self._error = span, error

    def end(self, status: int, worker: str = "", retries: int = 0, service: str = "") -> None:
        """Once, whatever became of the request. `worker`: its id, empty where the proxy itself answered."""
        span = self._span
        if span.is_recording():
            named: dict[str, str | int] = {
                "fairway.service": service,
                "fairway.worker": worker,
                "fairway.retries": retries,
            }
            found = {name: value for name, value in named.items() if value}
            found["http.response.status_code"] = status
            if status >= 500:
                found["error.type"] = str(status)
                span.set_status(self._error)
            span.set_attributes(found)
        span.end()


class Tracer:
    """`begin` where a request's head is there, `end` on what that gave; `close()` waits for the last ones to be sent."""

    def __init__(self, processor: SpanProcessor, environ: Mapping[str, str], scheme: str = "http") -> None:
        """`scheme`: what clients speak with this proxy."""
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        self._provider = TracerProvider(
            resource=Resource.create({} if named else {"service.name": "fairway-proxy"}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("fairway.proxy")
        self._trace, self._nothing, self._scheme = trace, Context(), scheme
        self._error = trace.Status(trace.StatusCode.ERROR)

    def begin(self, method: bytes, target: bytes, traceparent: bytes | None) -> Span:
        """`target`: path and query as they came."""
        trace = self._trace
        caller, context = decode(traceparent), self._nothing
        if caller is not None:
            parent = trace.SpanContext(
                caller.trace_id, caller.parent_id, is_remote=True, trace_flags=trace.TraceFlags(caller.flags)
            )
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent), context)
        path, _, query = target[:MOST_TARGET].decode("latin-1").partition("?")
        name = METHODS.get(method)
        attributes = {"http.request.method": name or "_OTHER", "url.path": path, "url.scheme": self._scheme}
        if name is None:
            attributes["http.request.method_original"] = method.decode("latin-1")
        if query:
            attributes["url.query"] = SECRET.sub(r"\1=REDACTED", "?" + query)[1:]
        span = self._tracer.start_span(
            # Few different names: what a path holds is anybody's choice.
            name or "HTTP",
            context,
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
        )
        return Span(span, caller is None, self._error)

    def close(self) -> None:
        """Blocks for as long as the exporter may take: call it in a thread."""
        self._provider.shutdown()


def open_tracer(environ: Mapping[str, str], scheme: str = "http") -> Tracer | None:
    """None where the environment asks for none, or for what is not installed: then the log says what to install.

    To be called in the process that serves: the sending thread does not live through a fork.
    """
    if not any(environ.get(name) for name in SWITCHES) or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    kind = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    if kind == "none":
        return None
    if kind == "otlp":
        kind = (
            environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
            or "http/protobuf"
        )
    if kind not in EXPORTERS:
        log.warning("no spans: %r is none of the exporters known here: %s", kind, ", ".join(EXPORTERS))
        return None
    module, _, name = EXPORTERS[kind].partition(":")
    try:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter: SpanExporter = getattr(importlib.import_module(module), name)()
    except ImportError as error:
        log.warning("no spans, although OTEL_* is set: %s; pip install 'fairway[tracing]'", error)
        return None
    log.info("spans are sent (%s)", kind)
    return Tracer(BatchSpanProcessor(exporter), environ, scheme)
