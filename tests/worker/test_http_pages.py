"""Paths: which handler a request means, what the pages say, and how they describe themselves."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import pytest

from fairway.worker.errors import NotFound
from fairway.worker.listeners.http import openapi
from fairway.worker.listeners.http.errors import MethodNotAllowed
from fairway.worker.listeners.http.message import Request, Response, Route
from fairway.worker.listeners.http.router import REMEMBERED, Router

from .door import RED, Door, answer, head


async def handler(request: Request, **groups: str) -> Response:
    return Response()


def test_whole_paths_come_before_patterns() -> None:
    exact, named = Route("GET", "/a", handler), Route("GET", re.compile("/(?P<name>[^/]+)(?:/(?P<more>.*))?"), handler)
    router = Router([named, exact, Route("POST", "/a", handler)])
    assert router.find("GET", "/a") == (exact, {})
    assert router.find("HEAD", "/a") == (exact, {})
    assert router.find("GET", "/b%20%C3%BC") == (named, {"name": "b ü"})
    assert router.find("GET", "/b/c/d") == (named, {"name": "b", "more": "c/d"})


def test_what_is_remembered_is_what_would_be_found() -> None:
    named = Route("GET", re.compile("/m/(?P<name>[^/]+)"), handler)
    router = Router([named, Route("POST", re.compile("/m/(?P<name>[^/]+)"), handler)])
    for _ in range(2):
        for number in range(REMEMBERED + 10):
            assert router.find("GET", f"/m/{number}%20") == (named, {"name": f"{number} "})
        with pytest.raises(MethodNotAllowed, match="/m/1%20 takes GET, HEAD, POST"):
            router.find("PUT", "/m/1%20")
        assert router.find("POST", "/m/1%20").route.method == "POST"
        with pytest.raises(NotFound, match="nothing at /n"):
            router.find("GET", "/n")


def test_what_is_not_there_and_what_is_not_done_there() -> None:
    router = Router(
        [
            Route("GET", "/a", handler),
            Route("POST", re.compile("/(a|b)"), handler),
            Route("PUT", re.compile("/[^/]*"), handler),
        ]
    )
    with pytest.raises(NotFound, match="nothing at /x/y: send an image with POST to /"):
        router.find("POST", "/x/y")
    with pytest.raises(NotFound, match="nothing at /x"):  # a name that an upload may bear
        router.find("GET", "/x")
    with pytest.raises(MethodNotAllowed, match="DELETE will not do here: /a takes GET, HEAD, POST, PUT") as caught:
        router.find("DELETE", "/a")
    assert caught.value.allowed == ("GET", "HEAD", "POST", "PUT")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/healthz", ["/healthz"]),
        (r"/v1/models/(?P<model>[^/:]+):image", ["/v1/models/{model}:image"]),
        (
            r"(?i)/m/(?P<m>[^/]+)(?:/versions/(?P<v>[0-9]+)|/labels/(?P<l>[^/:]+))?",
            ["/m/{m}", "/m/{m}/labels/{l}", "/m/{m}/versions/{v}"],
        ),
        (r"/a(?:/(?P<b>(?:x|y)+(?:\))?))?\.json", ["/a.json", "/a/{b}.json"]),
        ("/[^/]*", ["/{name}"]),
    ],
)
def test_patterns_become_templates(pattern: str, expected: list[str]) -> None:
    assert openapi.templates(pattern) == expected


async def test_the_document_names_every_route_and_only_what_is_there(warm: Door) -> None:
    _, document = await warm.send("GET", "/openapi.json")
    assert document["openapi"] == "3.1.0"
    for path in (
        "/",
        "/models",
        "/metrics",
        "/docs",
        "/v1/models/{model}:image",
        "/v1/models/{model}/versions/{version}:predict",
    ):
        assert path in document["paths"]
    for path, operations in document["paths"].items():
        example = path.replace("{model}", "colours").replace("{version}", "1")
        for method, operation in operations.items():
            names = {parameter["name"] for parameter in operation.get("parameters", ())}
            assert names == set(re.findall(r"{(\w+)}", path))
            if (
                method == "get"
                and "{" not in example
                and operation["responses"]["200"]["content"].get("application/json") == {}
            ):
                assert (await warm.send("GET", example))[0] == 200, path
    body = document["paths"]["/"]["post"]["requestBody"]["content"]
    assert {"multipart/form-data", "application/json", "image/*"} <= set(body)
    assert "data" in body["multipart/form-data"]["schema"]["properties"]


async def test_the_page_is_whole_and_loads_nothing(warm: Door) -> None:
    async with warm.session.get(f"http://127.0.0.1:{warm.port}/docs") as response:
        assert response.content_type == "text/html"
        text = await response.text()
    seen: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.append(tag)
            assert not {name for name, _ in attrs} & {"src", "srcset"}

    Reader().feed(text)
    assert not {"script", "link", "img", "iframe"} & set(seen)
    assert "http://" not in text.replace("http://HOST:PORT/", "")
    for path in ("/v1/models/<em>{model}</em>:image", "/healthz"):
        assert path in text


async def test_what_a_report_says_by_numbers_is_shown_as_well(warm: Door) -> None:
    warm.repository.find().report["runtime"] = {"rates": {1: 40.0, 8: 76.0}}
    status, said = await warm.send("GET", "/models")
    assert (status, said["models"][0]["versions"][0]["choice"]) == (200, {"rates": {"1": 40.0, "8": 76.0}})


async def test_models(warm: Door) -> None:
    _, said = await warm.send("GET", "/models")
    (model,) = said["models"]
    (version,) = model["versions"]
    assert (model["name"], version["version"], version["state"], version["runtime"]) == (
        "colours",
        1,
        "AVAILABLE",
        "python",
    )
    assert version["images"] == {"accepted": True, "input": "image", "labels": 3}
    (signature,) = version["signatures"].values()
    assert signature["inputs"] == [{"name": "image", "dtype": "float32", "shape": [-1, 4, 4, 3]}]
    assert "mode" in version["batching"]


async def test_metrics(warm: Door) -> None:
    assert (await warm.send("POST", data=RED))[0] == 200
    assert (await warm.send("POST", data=b"no image"))[0] == 415
    async with warm.session.get(f"http://127.0.0.1:{warm.port}/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await response.text()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['fairway_worker_request_success{model="colours",version="1"}'] == "1"
    assert lines['fairway_worker_request_failure{model="colours",version="1",reason="INPUT"}'] == "1"
    assert lines['fairway_worker_encode_seconds_count{model="colours",version="1"}'] == "1"
    assert lines['fairway_worker_http_answers{status="200"}'] == "1"
    assert lines['fairway_worker_http_answers{status="415"}'] == "1"
    assert lines["fairway_worker_http_in_flight"] == "1"  # this one


# -- pictures of a model that is named ------------------------------------------------------------------------------

B64 = base64.b64encode(RED).decode()


@pytest.mark.parametrize("path", ["/", "/v1/models/colours:image", "/v1/models/colours/versions/1:image?top=3"])
@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
async def test_pictures_in_json(warm: Door, path: str, kind: str) -> None:
    body = json.dumps({"image": {"b64": B64}})
    status, pairs = await warm.send("POST", path, data=body, headers={"Content-Type": kind})
    assert (status, pairs[0][0], len(pairs)) == (200, "red", 3)


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/", b"{", 400, "not JSON"),
        ("/", b"[1]", 415, "not an image"),
        ("/", b'{"image": "x"}', 400, 'expected {"image": {"b64": "..."}}'),
        ("/", b'{"image": {"b64": 1}}', 400, "no image in the JSON"),
        ("/", b'{"image": {"b64": "====!"}}', 400, "not base64"),
        ("/", b'{"image": {"b64": ""}}', 400, "empty"),
        ("/", b'{"a": ' + b"[" * 10_000, 400, "not JSON"),
        ("/v1/models/colours:image", b'{"instances": [[1.0]]}', 400, "/v1/models/colours:predict"),
        ("/v1/models/nobody:image", RED, 404, "Servable not found for request: Latest(nobody)"),
        ("/v1/models/colours/versions/7:image", RED, 404, "Servable not found for request: Specific(colours, 7)"),
        ("/v1/models/colours/labels/best:image", RED, 400, "Unrecognized servable version label: best"),
    ],
)
async def test_pictures_that_are_refused(warm: Door, path: str, body: bytes, status: int, text: str) -> None:
    got, said = await warm.send("POST", path, data=body)
    assert (got, text in said["error"]) == (status, True), said
    await warm.is_well()


async def test_pages_of_other_sites_may_ask_where_it_is_allowed(warm: Door) -> None:
    preflight = head("OPTIONS", "/v1/models/colours:predict", Origin="http://a")
    reader, writer = await warm.raw(preflight)
    status, headers, _ = await answer(reader)
    assert (status, headers.get("access-control-allow-origin")) == (405, None)
    warm.http._cors = "Access-Control-Allow-Origin: *\r\n"
    writer.write(preflight)
    status, headers, _ = await answer(reader, empty=True)
    assert (status, headers["access-control-allow-origin"]) == (200, "*")
    assert headers["access-control-allow-methods"] == "POST, GET"
    writer.close()
