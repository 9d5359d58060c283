"""Spans by OpenTelemetry's own library, as its exporters and a collector over HTTP get them; and nothing at all without."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from fairway.proxy.trace_context import decode
from fairway.proxy.tracing import Tracer, open_tracer

from ..conftest import ROOT

pytest.importorskip("opentelemetry.sdk", reason="pip install 'fairway[tracing]'")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

CALLER = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Kept(Tracer):
    """A tracer, and its spans."""

    def __init__(self, **environ: str) -> None:
        self.exporter = InMemorySpanExporter()
        super().__init__(SimpleSpanProcessor(self.exporter), environ)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def tracer() -> Iterator[Kept]:
    made = Kept()
    yield made
    made.close()


def test_a_span_is_the_callers_child_and_the_workers_caller(tracer: Kept) -> None:
    span = tracer.begin(b"POST", b"/classify?top=3", CALLER)
    told = decode(span.header)
    assert told is not None
    assert told.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert told.parent_id != 0xB7AD6B7169203331
    assert told.sampled
    assert not span.new
    assert not tracer.spans
    span.end(200, "w1", 1, "classify")
    [kept] = tracer.spans
    assert kept.context.span_id == told.parent_id
    assert kept.parent is not None
    assert (kept.parent.span_id, kept.parent.is_remote) == (0xB7AD6B7169203331, True)
    assert (kept.name, kept.kind, kept.status.status_code) == ("POST", SpanKind.SERVER, StatusCode.UNSET)
    assert dict(kept.attributes or {}) == {
        "http.request.method": "POST",
        "url.path": "/classify",
        "url.query": "top=3",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "fairway.service": "classify",
        "fairway.worker": "w1",
        "fairway.retries": 1,
    }
    assert kept.resource.attributes["service.name"] == "fairway-proxy"


@pytest.mark.parametrize("traceparent", [None, b"", b"nonsense", CALLER + b"-00", CALLER.upper()])
def test_without_a_caller_a_trace_begins(tracer: Kept, traceparent: bytes | None) -> None:
    spans = [tracer.begin(b"GET", b"/", traceparent) for _ in range(2)]
    traces = [decode(span.header) for span in spans]
    assert all(span.new for span in spans)
    assert traces[0] is not None
    assert traces[1] is not None
    assert traces[0].trace_id != traces[1].trace_id
    spans[0].end(200)
    assert tracer.spans[0].parent is None


def test_who_is_not_traced_stays_so(tracer: Kept) -> None:
    span = tracer.begin(b"POST", b"/", CALLER[:-1] + b"0")
    told = decode(span.header)
    assert told is not None
    assert told.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert not told.sampled
    span.end(502)
    assert not tracer.spans


def test_an_error_is_ours_or_the_workers_never_the_clients(tracer: Kept) -> None:
    for status in (400, 499, 503):
        tracer.begin(b"POST", b"/", None).end(status)
    codes = [span.status.status_code for span in tracer.spans]
    assert codes == [StatusCode.UNSET, StatusCode.UNSET, StatusCode.ERROR]
    assert [(span.attributes or {}).get("error.type") for span in tracer.spans] == [None, None, "503"]


def test_strangers_choose_no_names(tracer: Kept) -> None:
    tracer.begin(b"PROPFIND", b"/\xff" + b"a" * 9000, None).end(200)
    [span] = tracer.spans
    attributes = dict(span.attributes or {})
    assert (span.name, attributes["http.request.method"]) == ("HTTP", "_OTHER")
    assert attributes["http.request.method_original"] == "PROPFIND"
    assert len(str(attributes["url.path"])) == 2048


def test_signatures_are_not_written_down(tracer: Kept) -> None:
    tracer.begin(b"GET", b"/a?sig=se%20cret&x=sig=1&Signature=s3cret&signal=on", None).end(200)
    assert (tracer.spans[0].attributes or {})["url.query"] == "sig=REDACTED&x=sig=1&Signature=REDACTED&signal=on"


def test_the_environment_names_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "the front door")
    tracer = Kept(**os.environ)
    tracer.begin(b"GET", b"/", None).end(200)
    assert tracer.spans[0].resource.attributes["service.name"] == "the front door"
    tracer.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "a name alone asks for nothing"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "TRUE"},
    ],
)
def test_none_is_asked_for(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    assert open_tracer(environ) is None
    assert not caplog.records


def test_an_exporter_that_is_none(caplog: pytest.LogCaptureFixture) -> None:
    assert open_tracer({"OTEL_TRACES_EXPORTER": "zipkin"}) is None
    assert "'zipkin' is none of the exporters known here: console, http/protobuf, grpc" in caplog.text


class Collector:
    """What OTLP over HTTP brings, on a port of its own."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.came = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                collector.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
                collector.came.set()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_a_collector_gets_them(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    tracer = open_tracer(os.environ, "https")
    assert tracer is not None
    span = tracer.begin(b"POST", b"/classify", CALLER)
    span.end(200, "w1", 0)
    assert collector.came.wait(20), "sent by its own thread, without a close"
    tracer.begin(b"POST", b"/last", CALLER).end(200, "w1", 0)
    tracer.close()
    found = [
        sent
        for body in collector.bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for sent in scope.spans
    ]
    assert [{pair.key: pair.value.string_value for pair in sent.attributes}["url.path"] for sent in found] == [
        "/classify",
        "/last",
    ], "those that were not sent yet are sent at the end"
    told = decode(span.header)
    assert told is not None
    assert int.from_bytes(found[0].span_id) == told.parent_id
    assert {pair.key: pair.value.string_value for pair in found[0].attributes}["url.scheme"] == "https"


FRESH = """
import sys
from fairway.proxy.tracing import open_tracer
if sys.argv[1] == "missing":
    sys.modules["opentelemetry"] = None  # as if it were not installed
    assert open_tracer({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}) is None
else:
    assert open_tracer({}) is None
    assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


@pytest.mark.parametrize("case", ["off", "missing"])
def test_without_the_library(case: str) -> None:
    """Off, nothing of it is imported; asked for and not there, the log says what to install, and the proxy runs."""
    environ = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT / "src"))}
    ran = subprocess.run([sys.executable, "-c", FRESH, case], env=environ, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ("pip install 'fairway[tracing]'" in ran.stderr) is (case == "missing")
