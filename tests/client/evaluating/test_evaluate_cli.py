"""`fairway evaluate` against a web service as the EMNIST post has it: figures, files, partial results, exit statuses."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairway.client.evaluating.__main__ import evaluate
from fairway.client.evaluating.evaluation import Naming, Outcome
from fairway.client.evaluating.gallery import draw_examples
from fairway.client.evaluating.labelled import Example
from fairway.client.evaluating.summary import percentiles
from fairway.worker.errors import ConfigurationError
from fairway.worker.tensor import Prediction

from ...cluster.processes import FAIRWAY, Running
from .standin import CLASSES, StandIn, digits, standing_in
from .test_labelled import a_set, photos


@pytest.fixture
def server() -> Iterator[StandIn]:
    with standing_in() as found:
        yield found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(a_set(tmp_path_factory.mktemp("digits"), count=80))


def test_figures_and_files(server: StandIn, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"--{name}={tmp_path / name}" for name in ("picture", "confusion", "json")]
    assert evaluate(["--data", data, "--url", server.url, "--n=50", "--seed=3", "--show=6", *files]) == 0
    said = capsys.readouterr().out
    assert len(server.asked) == 51  # the first one twice: once before anything is measured

    pictures, numbers = digits(80, 1)
    chosen = np.random.RandomState(3).choice(80, 50, replace=False)
    scores = server.scores(pictures[chosen].reshape(-1, 64) / np.float32(255))
    called, truth = scores.argmax(1), numbers[chosen]
    right = int((called == truth).sum())
    assert 25 < right < 50
    assert f"accuracy  {right / 50:.2%}".replace("%", " %") + f" ({right} of 50; 95 % interval" in said
    ranks = (scores > scores[np.arange(50), truth][:, None]).sum(1)
    assert f"({int((ranks < 5).sum())} of 50" in re.search(r"^top-5.*", said, re.MULTILINE)[0]  # type: ignore[index]
    fives = truth == 5
    row = rf"^5 +{fives.sum()} +{(fives & (called == 5)).sum()} +{(called[fives] == 5).mean():.1%}".replace("%", " %")
    assert re.search(row, said, re.MULTILINE)
    assert re.search(r"mean [\d.]+, p50 [\d.]+, p90 [\d.]+, p99 [\d.]+", said)
    assert len(re.findall(r"^#\d+ +\d  called \d", said, re.MULTILINE)) == 6

    facts = json.loads((tmp_path / "json").read_text("utf-8"))
    assert (facts["right"], facts["answered"], facts["missing"], facts["seed"]) == (right, 50, 0, 3)
    assert [answer["example"] for answer in facts["answers"]] == [f"#{i}" for i in chosen]
    assert [int(answer["prediction"][0][0]) for answer in facts["answers"]] == called.tolist()
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (truth, called), 1)
    assert facts["confusion"] == {"labels": list("0123456789"), "rows_are_truth": expected.tolist()}
    assert [facts["classes"]["5"][key] for key in ("n", "right")] == [fives.sum(), (fives & (called == 5)).sum()]
    assert facts["right_among_own_classes"] == right  # it never names one of its other 52
    assert facts["latency_ms"]["p50"] <= facts["latency_ms"]["p99"]
    for name in ("picture", "confusion"):
        with Image.open(tmp_path / name) as drawn:
            assert drawn.format == "PNG"


def test_several_at_once_give_the_same(server: StandIn, data: str, tmp_path: Path) -> None:
    answers = []
    for concurrency in (1, 8):
        to = tmp_path / f"{concurrency}.json"
        assert evaluate(["--data", data, "--url", server.url, f"--concurrency={concurrency}", f"--json={to}"]) == 0
        answers.append([(one["example"], one["prediction"]) for one in json.loads(to.read_text())["answers"]])
    assert answers[0] == answers[1]


def test_photos_for_an_endpoint_that_takes_pixels(server: StandIn, data: str, tmp_path: Path) -> None:
    """The same digits as files, resized here: what comes back is the same."""
    for place, (pixels, number) in enumerate(zip(*digits(80, 1), strict=True)):
        (tmp_path / str(number)).mkdir(exist_ok=True)
        Image.fromarray(np.kron(pixels, np.ones((2, 2), np.uint8))).save(tmp_path / str(number) / f"{place}.png")
    (tmp_path / "3/broken.png").write_bytes(b"no picture")
    to = tmp_path / "found.json"
    line = ["--data", str(tmp_path), "--url", server.url, f"--json={to}", "--shape=8x8x1"]
    assert evaluate(line) == 1
    facts = json.loads(to.read_text("utf-8"))
    assert facts["errors"] == {"the file could not be read": 1}
    called = {Path(one["example"]).stem: one["prediction"][0][0] for one in facts["answers"] if "prediction" in one}
    assert len(called) == 80
    expected = server.scores(digits(80, 1)[0].reshape(-1, 64) / np.float32(255)).argmax(1)
    assert sum(called[str(place)] == str(number) for place, number in enumerate(expected)) > 70
    assert evaluate([*line[:-1], "--shape=64"]) == 78


def test_a_server_that_dies_leaves_what_was_measured(
    server: StandIn, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answering = lambda number: server.die() if number == 12 else None
    to = tmp_path / "found.json"
    line = ["--data", data, "--url", server.url, "--n=60", "--timeout-seconds=0.5", f"--json={to}"]
    assert evaluate(line) == 1
    said = capsys.readouterr().out
    facts = json.loads(to.read_text("utf-8"))
    assert (facts["answered"], facts["failed"], facts["missing"]) == (10, 3, 47)
    assert re.search(r"^accuracy .* of 10; ", said, re.MULTILINE)
    assert re.search(r"^47 of 60 are missing: 3 in a row found nobody", said, re.MULTILINE)
    assert sum(facts["errors"].values()) == 3
    assert all(f" of 13: {kind}" in said for kind in facts["errors"])
    assert re.search(r"^latency .* ms, of the 10 answered$", said, re.MULTILINE)
    assert re.search(rf"^speed +{10 / facts['seconds']:.1f} answers/s, ", said, re.MULTILINE)


def test_another_model_in_the_middle_leaves_what_was_measured(
    server: StandIn, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = server.scores
    server.answering = lambda number: setattr(
        server, "scores", scores if number < 12 else lambda rows: np.ones((len(rows), 7))
    )
    to = tmp_path / "found.json"
    assert evaluate(["--data", data, "--url", server.url, "--n=60", f"--json={to}"]) == 1
    facts = json.loads(to.read_text("utf-8"))
    assert (facts["answered"], facts["failed"], facts["missing"]) == (10, 0, 50)
    assert facts["stopped"].startswith("the endpoint has 7 classes, the data 10")
    assert "50 of 60 are missing: the endpoint has 7 classes" in capsys.readouterr().out


def test_interrupted_it_says_what_it_has(server: StandIn, data: str, tmp_path: Path) -> None:
    reached, gate = threading.Event(), threading.Event()

    def hold(number: int) -> None:
        if number == 8:
            reached.set()
            gate.wait(60)

    server.answering = hold
    to = tmp_path / "found.json"
    with Running([*FAIRWAY, "evaluate", "--data", data, "--url", server.url, "--n=60", f"--json={to}"]) as process:
        assert reached.wait(60), process.said
        process.send(signal.SIGINT)
        assert process.ended() == 130
        gate.set()
    assert re.search(r"^accuracy .* of 6; ", process.said, re.MULTILINE)
    assert "54 of 60 are missing: interrupted" in process.said
    assert "Traceback" not in process.said
    assert len(json.loads(to.read_text("utf-8"))["answers"]) == 6


def test_what_will_not_do_is_one_line(
    server: StandIn, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    photos(tmp_path / "photos", daisy=4)
    url = ["--url", server.url]
    for line, reason in (
        ([], "--data is required"),
        (["--data", "/nowhere", *url], "/nowhere: no such file or folder"),
        (["--data", data, "--url", "http://127.0.0.1:1/"], "asked at http://127.0.0.1:1/: Connection refused"),
        (["--data", data, "--url", "pigeon://post"], "is no address"),
        (["--data", data, *url, f"--labels={tmp_path / 'labels.txt'}"], "3 names, and the endpoint has 62 classes"),
        (["--data", data, *url, "--shape=28x28"], "takes 28x28, and the pictures are 8x8"),
        (["--data", data, *url, "--shape=8xx8"], "--shape: '8xx8' will not do"),
        (["--data", data, *url, "--json=/nowhere/a.json"], "there is no folder /nowhere"),
        (["--data", data, *url, "--protocol=npy"], "say --model NAME"),
        (["--data", data, *url, "--n=0"], "at least 1"),
        (["--data", data, "--url", f"{server.url}v1/models/m:regress"], "measured by predict"),
        (["--data", data, "--url", f"{server.url}v1/models/m:predict", "--via=address"], "is for a proxy's address"),
        (["--data", data, "--url", f"{server.url}v1/models/m:predict", "--protocol=fairway"], "is not what that"),
        (["--data", data, "--url", f"{server.url}v2/models/m/infer"], "tells nothing of a model's inputs"),
        # It takes JSON with rows, and no pictures.
        (["--data", str(tmp_path / "photos"), *url], "refuses what it is asked: rows are wanted"),
    ):
        assert evaluate(line) == 78, line
        said = capsys.readouterr()
        assert reason in said.err, line
        assert said.err.startswith("fairway: ")
        assert said.err.count("\n") == 1


def test_wrong_ones_are_drawn_in_red(tmp_path: Path) -> None:
    right = Outcome(Example("a", "$7", pixels=digits(1, 0)[0][0]), 1.0, Prediction((("$7", 0.9),)))
    wrong = Outcome(right.example, 1.0, Prediction((("t", 0.9),)))
    failed = Outcome(Example("b", "7", Path("/nowhere.jpg")), error=OSError("gone"))

    def reds(*outcomes: Outcome) -> int:
        draw_examples(outcomes, tmp_path / "drawn.png", "$")
        with Image.open(tmp_path / "drawn.png") as drawn:
            pixels = np.asarray(drawn.convert("RGB")).reshape(-1, 3)
        return int((pixels == (255, 0, 0)).all(1).sum())

    assert reds(right, right, failed) == 0
    assert reds(right, wrong) > 10
    assert reds() == 0


def test_names_of_class_numbers() -> None:
    digits_, flowers = tuple("0123456789"), ("daisy", "roses")
    assert Naming((), "", flowers).names(2) == flowers
    assert Naming((), "", digits_).names(CLASSES)[10] == "A"
    assert Naming((), "", digits_).names(10) == digits_
    assert Naming(("x", "y"), "labels.txt", flowers).names(2) == ("x", "y")
    for naming, count in ((Naming((), "", flowers), 62), (Naming(("x",), "labels.txt", flowers), 2)):
        with pytest.raises(ConfigurationError):
            naming.names(count)


def test_percentiles() -> None:
    assert percentiles([1.0, 2.0, 3.0, 4.0]) == {"mean": 2.5, "p50": 2.5, "p90": 3.7, "p99": 3.97, "max": 4.0}
