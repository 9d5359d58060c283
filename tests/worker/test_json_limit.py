"""JSON is bounded more tightly than other bodies: to read it holds all else up."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from fairway.worker.config import WorkerSettings
from fairway.worker.engine import Engine
from fairway.worker.errors import ConfigurationError
from fairway.worker.image import ImageLimits
from fairway.worker.listeners.http import HttpListener
from fairway.worker.listeners.http.message import Served
from fairway.worker.repository import Repository

from .colours import Colours, plain
from .door import answer, head

LIMIT = 2_000
NUMBERS = json.dumps({"instances": [[0.5] * 1000]}).encode()
PATHS = "/v1/models/colours:predict", "/v1/models/colours:classify", "/v2/models/colours/infer", "/"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}  # as curl -d calls everything


@pytest.fixture
async def url() -> AsyncIterator[str]:
    settings = WorkerSettings(registry="none", max_bytes=100_000, max_json_bytes=LIMIT)
    model = Colours().model()
    engine = Engine(ImageLimits(settings.max_bytes, settings.max_pixels), 1, 8)
    await engine.add(model)
    http = HttpListener(Served(engine, Repository([model]), "classify"), settings)
    bound = socket.create_server(("127.0.0.1", 0))
    await http.start(bound)
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    await http.close()
    engine.close()


async def said(url: str, data: Any, headers: dict[str, str]) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.post(url, data=data, headers=headers) as response:
        return response.status, await response.text()


async def chunked(body: bytes) -> AsyncIterator[bytes]:
    yield body


JSON = {"Content-Type": "application/json; charset=utf-8"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("headers", [JSON, FORM])
async def test_more_json_than_is_read(url: str, path: str, headers: dict[str, str]) -> None:
    for data in (NUMBERS, b" \n" + NUMBERS, chunked(NUMBERS)):
        status, text = await said(url + path, data, headers)
        assert status == 413
        assert f"at most {LIMIT} are read (--max-json-bytes)" in text
        assert "application/x-npy" in text


async def test_it_is_refused_before_it_is_read(url: str) -> None:
    """Where its head says what it is."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(head("POST", "/v1/models/colours:predict", Content_Type="application/json", Content_Length=LIMIT + 1))
    status, _, text = await answer(reader)
    assert (status, str(LIMIT) in str(text)) == (413, True)
    writer.close()


async def test_what_was_packed_small_counts_as_it_is(url: str) -> None:
    packed = gzip.compress(NUMBERS)
    assert len(packed) < LIMIT
    status, text = await said(url + "/v1/models/colours:predict", packed, {**FORM, "Content-Encoding": "gzip"})
    assert (status, "--max-json-bytes" in text) == (413, True)


async def test_whatever_is_no_json_may_be_larger(url: str) -> None:
    picture = plain("red") + bytes(3 * LIMIT)
    status, text = await said(url, picture, {"Content-Type": "image/png"})
    assert (status, text[:8]) == (200, '[["red",')
    form = aiohttp.FormData()
    form.add_field("data", picture, filename="red.png")
    assert (await said(url, form, {}))[0] == 200


async def test_json_with_bytes_behind_it_counts_as_far_as_it_is_json(url: str) -> None:
    size = 4 * 4 * 3 * 4 * 50
    words = json.dumps(
        {
            "inputs": [
                {"name": "image", "shape": [50, 4, 4, 3], "datatype": "FP32", "parameters": {"binary_data_size": size}}
            ]
        }
    ).encode()
    assert len(words) < LIMIT < size
    for content_type in ("application/octet-stream", "application/json"):
        headers = {"Content-Type": content_type, "Inference-Header-Content-Length": str(len(words))}
        status, text = await said(url + "/v2/models/colours/infer", words + bytes(size), headers)
        assert "--max-json-bytes" not in text, (status, text)
    padded = words + b" " * LIMIT
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(padded))}
    status, text = await said(url + "/v2/models/colours/infer", padded + bytes(size), headers)
    assert (status, "--max-json-bytes" in text) == (413, True)


@pytest.mark.parametrize("path", [path for path in PATHS if not path.startswith("/v2/")])
@pytest.mark.parametrize("headers", [JSON, FORM])
async def test_only_where_bytes_may_follow_is_it_said_how_much_is_json(
    url: str, path: str, headers: dict[str, str]
) -> None:
    for length in ("0", "1", "x"):
        status, text = await said(url + path, NUMBERS, {**headers, "Inference-Header-Content-Length": length})
        assert (status, "--max-json-bytes" in text) == (413, True)


def test_the_limit_is_a_number_of_bytes() -> None:
    with pytest.raises(ConfigurationError, match="--max-json-bytes: 0 is too few"):
        WorkerSettings(max_json_bytes=0)
