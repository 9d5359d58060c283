"""TensorFlow Serving's REST API over real sockets, as its own clients use it."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest
import requests

from fairway.worker.wire import tfserving

from .colours import plain
from .half_plus_two import LIMIT, Site, models, serving

HALF = "/v1/models/half_plus_two"
COLOURS = "/v1/models/colours"
RED, BLUE = plain("#ff0000"), plain("#0000ff")


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving(models()) as site:
        yield site


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


# -- predict ----------------------------------------------------------------------------------------------------------


async def test_rows_and_columns(site: Site) -> None:
    for values, expected in (([[1.0, 2.0], [3.0, 4.0]], [[3.5, 4.0], [4.5, 5.0]]), ([1, 2], [3.5, 4])):
        assert await site.post(HALF + ":predict", {"instances": values}) == {"predictions": expected}
        assert await site.post(HALF + ":predict", {"inputs": values}) == {"outputs": expected}
        assert await site.post(HALF + ":predict", {"inputs": {"x": values}}) == {"outputs": expected}


async def test_versions_labels_and_signatures(site: Site) -> None:
    asked = {"instances": [2]}
    for path, expected in (("", 4), ("/versions/1", 3), ("/versions/123", 4), ("/labels/stable", 3)):
        assert await site.post(f"{HALF}{path}:predict", asked) == {"predictions": [expected]}
    named = asked | {"signature_name": "whole"}
    assert await site.post(HALF + ":predict", named) == {"predictions": [2]}
    assert await site.post(HALF + ":predict", {"inputs": [2], "signature_name": "serving_default"}) == {"outputs": [4]}


async def test_paths_of_any_case_and_encoding(site: Site) -> None:
    for path in ("/V1/MODELS/half_plus_two:PREDICT", "/v1/Models/half%5Fplus%5Ftwo/Versions/123:Predict"):
        assert await site.post(path, {"instances": [2]}) == {"predictions": [4]}
    assert await site.refusal("/v1/models/HALF_PLUS_TWO:predict", {"instances": [2]}, 404)


async def test_several_inputs_and_outputs(site: Site) -> None:
    rows = {"signature_name": "pair", "instances": [{"a": 1, "b": 2}, {"a": 4, "b": 3}]}
    expected = [{"larger": False, "sum": 3}, {"larger": True, "sum": 7}]
    assert await site.post(HALF + ":predict", rows) == {"predictions": expected}
    columns = {"signature_name": "pair", "inputs": {"a": [[1, 2]], "b": [[3, 4]]}}
    expected_columns = {"larger": [[False, False]], "sum": [[4, 6]]}
    assert await site.post(HALF + ":predict", columns) == {"outputs": expected_columns}


async def test_byte_strings(site: Site) -> None:
    asked = {"signature_name": "words", "instances": ["é", b64(b"\xff"), "ab"]}
    found = await site.post(HALF + ":predict", asked)
    assert found["predictions"] == [
        {"upper": "é", "raw_bytes": b64("é".encode()), "letters": 2},
        {"upper": b64(b"\xff"), "raw_bytes": b64(b"\xff"), "letters": 1},
        {"upper": "AB", "raw_bytes": b64(b"ab"), "letters": 2},
    ]


async def test_numbers_that_are_none_go_in_and_out(site: Site) -> None:
    answered = await site.send("POST", HALF + ":predict", data=b'{"instances": [NaN, Infinity, -Infinity, 0]}')
    assert answered.body == b'{"predictions": [NaN,Infinity,-Infinity,3.0]}'


async def test_the_type_of_a_body_is_not_looked_at(site: Site) -> None:
    body = b'{"instances": [2]}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/octet-stream"):
        answered = await site.send("POST", HALF + ":predict", data=body, headers={"Content-Type": kind})
        assert answered.json == {"predictions": [4]}


async def test_a_compressed_body(site: Site) -> None:
    packed = gzip.compress(json.dumps({"instances": [2] * 50_000}).encode())
    answered = await site.send("POST", HALF + ":predict", data=packed, headers={"Content-Encoding": "gzip"})
    assert answered.json == {"predictions": [4.0] * 50_000}
    bomb = gzip.compress(b'{"instances": [' + b" " * LIMIT)
    answered = await site.send("POST", HALF + ":predict", data=bomb, headers={"Content-Encoding": "gzip"})
    assert (answered.status, answered.json.keys()) == (413, {"error"})


async def test_every_answer_says_where_its_time_went(site: Site) -> None:
    answered = await site.send("POST", HALF + ":predict", data=b'{"instances": [2]}')
    assert [part.partition(";")[0] for part in answered.headers["Server-Timing"].split(", ")] == [
        "queue", "decode", "infer", "encode",
    ]  # fmt: skip


async def test_large_requests_leave_the_loop_free(site: Site) -> None:
    """What is read exactly, above all: half a million numbers take a second of Python."""
    body = b'{"instances": [NaN' + b", 0.25" * 500_000 + b"]}"
    now = asyncio.get_running_loop().time
    sent = asyncio.create_task(site.send("POST", HALF + ":predict", data=io.BytesIO(body)))
    began = last = now()
    longest = 0.0
    while not sent.done():
        await asyncio.sleep(0.005)
        longest, last = max(longest, now() - last), now()
    assert (await sent).body.startswith(b'{"predictions": [NaN,3.125,')
    assert longest < (last - began) / 2


async def test_the_articles_clients_work_as_they_are(site: Site) -> None:
    def memefly() -> Any:
        x = np.array([[1.0, 2.0, 5.0]])
        predict_request = f'{{"instances" : {x.tolist()}}}'
        response = requests.post(site.url + HALF + ":predict", data=predict_request, timeout=10)
        response.raise_for_status()
        return response.json()["predictions"]

    def emnist(path: str) -> Any:
        images = np.linspace(0, 1, 2 * 784).reshape(2, 784)
        payload = json.dumps({"instances": images.tolist()})
        response = requests.post(
            site.url + path, data=payload, headers={"content-type": "application/json"}, timeout=10
        )
        return np.array(response.json()["predictions"]) - images / 2

    assert await asyncio.to_thread(memefly) == [[3.5, 4.0, 5.5]]
    assert np.allclose(await asyncio.to_thread(emnist, HALF + "/versions/1:predict"), 2)
    assert np.allclose(await asyncio.to_thread(emnist, "/"), 3)  # its own web service had no other path


async def test_our_own_codec_talks_to_it(site: Site) -> None:
    a, b = np.array([1, 2], np.float32), np.array([2, 1], np.float32)
    body = tfserving.encode_request({"a": a, "b": b}, "pair")
    found = tfserving.decode_response((await site.send("POST", HALF + ":predict", data=body)).body)
    assert found["sum"].tolist() == [3, 3]
    assert found["larger"].tolist() == [False, True]


# -- pictures ---------------------------------------------------------------------------------------------------------


async def test_pictures_in_json(site: Site) -> None:
    for value in ([b64(RED), b64(BLUE)], [{"pixels": b64(RED)}, {"pixels": b64(BLUE)}]):
        assert await site.post(COLOURS + ":predict", {"instances": value}) == {"predictions": [[1, 0, 0], [0, 0, 1]]}
    assert await site.post(COLOURS + ":predict", {"inputs": b64(BLUE)}) == {"outputs": [[0, 0, 1]]}
    pixels = np.zeros((1, 4, 4, 3))
    pixels[..., 1] = 255
    asked = {"instances": pixels.tolist(), "signature_name": "serving_default"}  # which it calls otherwise
    assert (await site.post(COLOURS + ":predict", asked))["predictions"][0][1] == pytest.approx(1)


async def test_pictures_as_they_are(site: Site) -> None:
    for kind in ("image/png", "application/x-www-form-urlencoded"):
        answered = await site.send("POST", COLOURS + ":predict", data=BLUE, headers={"Content-Type": kind})
        assert answered.json == {"predictions": [[0, 0, 1]]}
    form = aiohttp.FormData()
    form.add_field("data", RED, filename="red.png")
    form.add_field("another", BLUE, filename="blue.png")
    assert (await site.send("POST", COLOURS + ":predict", data=form)).json == {"predictions": [[1, 0, 0], [0, 0, 1]]}
    field = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
    parts = field % b"note" + b"no picture\r\n" + field % b"data" + RED + b"\r\n--b--\r\n"
    kind = "multipart/form-data; boundary=b"
    answered = await site.send("POST", COLOURS + ":predict", data=parts, headers={"Content-Type": kind})
    assert answered.json == {"predictions": [[1, 0, 0]]}


async def test_pictures_with_their_labels(site: Site) -> None:
    expected = {"results": [[["blue", 1.0], ["red", 0.0], ["green", 0.0]]]}
    for example in ({"image": b64(BLUE)}, {"pixels": [b64(BLUE)], "name": "sky"}, {"whatever": b64(BLUE)}):
        assert await site.post(COLOURS + ":classify", {"examples": [example]}) == expected
    answered = await site.send("POST", COLOURS + ":classify?top=1", data=RED, headers={"Content-Type": "image/png"})
    assert answered.json == {"results": [[["red", 1.0]]]}
    both = {"examples": [{"image": b64(BLUE)}, {"image": b64(RED)}]}
    assert await site.post(COLOURS + ":classify?top=1", both) == {"results": [[["blue", 1.0]], [["red", 1.0]]]}


async def test_pictures_that_are_refused(site: Site) -> None:
    async def sent(path: str, **more: Any) -> tuple[int, str]:
        answered = await site.send("POST", path, **more)
        return answered.status, answered.json["error"]

    image = {"Content-Type": "image/jpeg"}
    assert (await sent(COLOURS + ":predict", data=b"", headers=image)) == (400, "the picture is empty")
    assert (await sent(COLOURS + ":predict", data=b"no picture", headers=image))[0] == 415
    assert (await sent(COLOURS + ":predict", data=RED[:60], headers=image))[0] == 400
    assert (await sent(COLOURS + ":predict", data=plain("red", (2000, 1000)), headers=image))[0] == 413
    assert (await sent(HALF + ":predict", data=RED, headers=image)) == (
        400, "half_plus_two takes tensors, not pictures: it is made for numbers",
    )  # fmt: skip
    form = aiohttp.FormData({"note": "no picture"}, default_to_multipart=True)
    assert "expected files" in (await sent(COLOURS + ":predict", data=form))[1]
    assert "expected {" in await site.refusal(COLOURS + ":classify", {"examples": [{"size": 3}]})
    asked = {"signature_name": "other", "instances": [b64(RED)]}
    assert "not of expected type: float" in await site.refusal(COLOURS + ":predict", asked)
    status, text = await sent(COLOURS + ":predict?signature_name=other", data=RED)
    assert (status, text) == (400, 'pictures are for the signature "serve"; asked for "other"')
    assert (await sent(COLOURS + ":classify?top=x", data=RED))[0] == 400


# -- .npy -------------------------------------------------------------------------------------------------------------

NPY = {"Content-Type": "application/x-npy"}


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


async def test_arrays_as_files(site: Site) -> None:
    array = np.linspace(0, 1, 6).reshape(2, 3)  # float64, as NumPy has it
    for body in (saved(array), saved(array.astype(np.float32)), saved(np.asfortranarray(array))):
        answered = await site.send("POST", HALF + ":predict", data=body, headers=NPY)
        assert np.allclose(answered.json["predictions"], array / 2 + 3)
        answered = await site.send("POST", HALF + ":predict", data=body, headers={**NPY, "Accept": "application/x-npy"})
        assert answered.headers["Content-Type"] == "application/x-npy"
        found = np.load(io.BytesIO(answered.body))
        assert (found.dtype, found.tolist()) == (np.float32, (array.astype(np.float32) / 2 + 3).tolist())
    answered = await site.send("POST", HALF + ":predict?signature_name=whole", data=saved(np.array([7])), headers=NPY)
    assert answered.json == {"predictions": [7]}


async def test_one_output_of_several_as_a_file(site: Site) -> None:
    asked = b'{"signature_name": "pair", "instances": [{"a": 1, "b": 2}]}'
    accept = {"Accept": "application/x-npy, application/json;q=0.5"}
    answered = await site.send("POST", HALF + ":predict?output=larger", data=asked, headers=accept)
    assert np.load(io.BytesIO(answered.body)).tolist() == [False]
    for output in ("", "?output=else"):
        answered = await site.send("POST", HALF + ":predict" + output, data=asked, headers=accept)
        assert (answered.status, answered.json["error"]) == (
            400, "a .npy file is one array: say ?output=NAME, one of sum, larger",
        )  # fmt: skip
    words = b'{"signature_name": "words", "instances": ["a"]}'
    answered = await site.send("POST", HALF + ":predict?output=upper", data=words, headers=accept)
    assert (answered.status, answered.json["error"]) == (400, "this output is no array of numbers; ask for it as JSON")


async def test_files_that_are_refused(site: Site) -> None:
    for query, body, text in (
        ("", b"no file", "not a .npy file"),
        ("", saved(np.zeros((2, 3)))[:-1], "47 follow it"),
        ("", saved(np.zeros(2, np.complex64)), "expected numbers or bools"),
        ("?signature_name=whole", saved(np.array([2**40])), "does not fit int32"),
        ("?signature_name=whole", saved(np.array([0.5])), "int32"),
        ("?signature_name=pair", saved(np.zeros(2)), "a .npy file is one array, but there are 2 inputs: a, b"),
        ("?signature_name=none", saved(np.zeros(2)), 'Serving signature name: "none" not found in signature def'),
    ):
        answered = await site.send("POST", HALF + ":predict" + query, data=body, headers=NPY)
        assert answered.status == 400
        assert text in answered.json["error"]


# -- classify and regress ---------------------------------------------------------------------------------------------


async def test_classify_and_regress(site: Site) -> None:
    asked: dict[str, Any] = {"signature_name": "classify_x", "examples": [{"inputs": 20.0}, {"inputs": [10.0]}]}
    assert await site.post(HALF + ":classify", asked) == {"results": [[["", 13]], [["", 8]]]}
    asked = {"signature_name": "regress_x", "context": {"inputs": 80.0}, "examples": [{}, {"inputs": 2.0}]}
    assert await site.post(HALF + ":regress", asked) == {"results": [43, 4]}


async def test_examples_for_what_takes_none(site: Site) -> None:
    asked: dict[str, Any] = {"examples": [{"x": 1.0}]}
    wrong = "Expected {} signature method_name to be tensorflow/serving/{}. Was: tensorflow/serving/predict"
    assert await site.refusal(HALF + ":classify", asked) == wrong.format("classification", "classify")
    assert await site.refusal(HALF + ":regress", asked) == wrong.format("regression", "regress")
    asked["signature_name"] = "none"
    for verb in (":classify", ":regress"):
        assert await site.refusal(HALF + verb, asked) == "No signature was found with the name: none"
    asked["signature_name"] = "regress_x"
    assert "no feature 'inputs'" in await site.refusal(HALF + ":regress", asked)
    asked["examples"] = [{"inputs": [1.0, 2.0]}]
    assert "shape" in await site.refusal(HALF + ":regress", asked)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v1/models/none:predict", 404, "Servable not found for request: Latest(none)"),
        ("/v1/models/none/versions/7:predict", 404, "Servable not found for request: Specific(none, 7)"),
        (HALF + "/versions/7:predict", 404, "Servable not found for request: Specific(half_plus_two, 7)"),
        (HALF + "/labels/none:predict", 400, "Unrecognized servable version label: none"),
        (HALF + "/versions/18446744073709551615:predict", 400,
         "Failed to convert version: 18446744073709551615 to numeric."),
        (HALF + "/versions/HELLO:predict", 400, f"Malformed request: POST {HALF}/versions/HELLO:predict"),
        (HALF + "/versions/1/labels/stable:predict", 400, None),
        (HALF + "/label/stable:predict", 400, None),
        (HALF + "/metadata", 400, None),
        (HALF + ":explain", 400, None),
        ("/v1/models", 400, None),
        ("/v1/foo", 400, "Malformed request: POST /v1/foo"),
    ],
)  # fmt: skip
async def test_paths_that_lead_nowhere(site: Site, path: str, status: int, text: str | None) -> None:
    assert await site.refusal(path, {"instances": [1]}, status) == (text or f"Malformed request: POST {path}")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"instances = [1, 2]", "JSON Parse error: Invalid value. at offset: 0"),
        (b'{"instances": [1, 2', "JSON Parse error: Missing a comma or ] after an array element. at offset: 19"),
        (b'{"instances": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "JSON Parse error: Nested too deeply."),
        (b'{"instances": [1e999]}', "JSON Parse error: Number too big to be stored in double. at offset: 15"),
        (b'{"instances": [1], "instances": [2]}', 'JSON object: the key "instances" is there twice'),
        (b'{"instances": ["\xff"]}', "JSON Parse error: Invalid encoding in string. at offset: 16"),
        (b"{}", "Missing 'inputs' or 'instances' key"),
        (b'{"instances": [1], "signature_name": "s"}', 'Serving signature name: "s" not found in signature def'),
        (b'{"instances": [], "signature_name": "whole"}', None),
        (b'{"instances": [[1], [2, 3]]}', None),
        (b'{"instances": [[1, 2]], "signature_name": "whole"}', "input 'n' has shape [1, 2]; expected [n]"),
        (b'{"inputs": [], "signature_name": "whole"}', "the inputs have no items; expected at least one"),
        (b'{"inputs": 1}', None),
        (b'{"instances": [NaN], "signature_name": "whole"}', None),
        (b'{"instances": [1.5], "signature_name": "whole"}', None),
        (
            b'{"inputs": {"x": [1], "more": [1]}, "signature_name": "pair"}',
            "Missing named input: a in 'inputs' object.",
        ),
        (b'{"inputs": {"a": [1], "b": [1, 2]}, "signature_name": "pair"}', None),
        (b'{"instances": [{"b64": "!"}], "signature_name": "words"}', None),
    ],
)
async def test_bad_bodies(site: Site, body: bytes, text: str | None) -> None:
    error = await site.refusal(HALF + ":predict", body)
    assert error
    assert text is None or error == text
    assert await site.post(HALF + ":predict", {"instances": [2]}) == {"predictions": [4]}  # and goes on


async def test_other_methods(site: Site) -> None:
    answered = await site.send("DELETE", HALF)
    assert (answered.status, answered.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert (await site.get(HALF + ":predict", 400)) == {"error": f"Malformed request: GET {HALF}:predict"}
    assert (await site.get("/v1/models/debug/half", 400)) == {"error": "Malformed request: GET /v1/models/debug/half"}


async def test_pages_of_other_sites(site: Site) -> None:
    answered = await site.send("POST", HALF + ":predict", data=b'{"instances": [2]}', headers={"Origin": "http://x"})
    assert "Access-Control-Allow-Origin" not in answered.headers
    async with serving(models(), cors=True) as open_one:
        origin = {"Origin": "http://x"}
        answered = await open_one.send("OPTIONS", HALF + ":predict", headers=origin)
        assert answered.status == 200
        assert answered.headers["Access-Control-Allow-Origin"] == "*"
        assert answered.headers["Access-Control-Allow-Methods"] == "POST, GET"
        assert answered.headers["Access-Control-Allow-Headers"] == "Content-Type"
        answered = await open_one.send("POST", HALF + ":predict", data=b'{"instances": [2]}', headers=origin)
        assert answered.headers["Access-Control-Allow-Origin"] == "*"
        assert (await open_one.send("OPTIONS", HALF + ":predict")).status == 405


# -- what is said of models -------------------------------------------------------------------------------------------


def available(version: int) -> dict[str, Any]:
    return {"version": str(version), "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}


async def test_status(site: Site) -> None:
    everything = {"model_version_status": [available(123), available(1)]}
    assert await site.get(HALF) == everything
    assert await site.get(HALF + "/labels/stable") == everything  # a label narrows nothing, there as here
    assert await site.get(HALF.upper().replace("HALF_PLUS_TWO", "half_plus_two") + "/Versions/1") == {
        "model_version_status": [available(1)]
    }
    assert await site.get("/v1/models") == {
        "models": [{"name": "half_plus_two", **everything}, {"name": "colours", "model_version_status": [available(1)]}]
    }
    assert await site.get("/v1/models/none", 404) == {"error": "Could not find any versions of model none"}
    assert await site.get(HALF + "/versions/7", 404) == {"error": "Could not find version 7 of model half_plus_two"}


async def test_metadata(site: Site) -> None:
    found = await site.get(HALF + "/versions/1/metadata")
    assert found["model_spec"] == {"name": "half_plus_two", "signature_name": "", "version": "1"}
    signatures = found["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"] == {
        "inputs": {"x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [], "unknown_rank": True}, "name": "x:0"}},
        "outputs": {"y": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [], "unknown_rank": True}, "name": "y:0"}},
        "method_name": "tensorflow/serving/predict",
    }
    assert signatures["regress_x"]["method_name"] == "tensorflow/serving/regress"
    assert (await site.get(HALF + "/metadata"))["model_spec"]["version"] == "123"
    assert (await site.get(HALF + "/labels/stable/metadata"))["model_spec"]["version"] == "1"
    assert "Servable not found" in (await site.get("/v1/models/none/metadata", 404))["error"]


async def test_a_listing_of_all_paths(site: Site) -> None:
    paths = (await site.get("/openapi.json"))["paths"]
    assert "/v1/models/{model}/labels/{label}:predict" in paths
    assert "application/x-npy" in paths["/v1/models/{model}:predict"]["post"]["requestBody"]["content"]
    assert not [path for path in paths if "*" in path]
