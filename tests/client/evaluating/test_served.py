"""`fairway evaluate` against real workers: photos and digits, in every manner and every form, to the last answer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fairway.client.evaluating import eval_serving_performance, eval_throughput
from fairway.client.evaluating.__main__ import evaluate
from fairway.client.evaluating.labelled import EMNIST

from ...cluster.processes import FAIRWAY, Running
from ...conftest import ROOT

CARD = {
    "input": {"width": 28, "height": 28, "channels": "L", "mean": [0], "std": [255], "resize": "squash"},
    "output": {"labels": list(EMNIST)},
}
WORKER = [*FAIRWAY, "worker", "--registry=none", "--port=0", "--runtime=tensorflow", "--batching=off"]


@dataclass
class Served:
    """`workers`: the first has both models, the second flowers alone; `proxy` knows two that have flowers."""

    worker: str
    proxy: str
    folder: Path


@pytest.fixture(scope="module")
def served(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(ROOT / "worker/models/flowers", folder / "models/flowers")
    shutil.copytree(shared_data / "models/emnist_dl2prod", folder / "models/emnist/1")
    (folder / "models/emnist/1/model_card.json").write_text(json.dumps({"name": "emnist", "version": 1, **CARD}))
    with ExitStack() as stack:
        # Two of them, so that a manner has somebody to choose from.
        both = [stack.enter_context(Running([*WORKER, f"--models={folder / 'models'}"])) for _ in range(2)]
        ports = [process.line(r"on http://127\.0\.0\.1:(\d+)", 120)[1] for process in both]
        proxy = stack.enter_context(Running([*FAIRWAY, "proxy", f"--static={','.join(ports)}", "--port=0"]))
        port = proxy.line(r"listening on http://127\.0\.0\.1:(\d+)")[1]
        yield Served(f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{port}", folder)


def answers(served: Served, *line: str, status: int = 0) -> Any:
    """The facts of an evaluation, and of each answer what does not depend on time or the form's digits."""
    to = served.folder / "found.json"
    assert evaluate([*line, "--show=0", f"--json={to}"]) == status
    facts = json.loads(to.read_text("utf-8"))
    called = [(one["example"], one["truth"], one["prediction"][0][0]) for one in facts["answers"]]
    return facts["accuracy"], called, facts


def test_flowers_are_the_same_in_every_manner_and_form(served: Served, shared_data: Path) -> None:
    data = ["--data", str(shared_data / "flowers"), "--model=flowers", "--n=40"]
    accuracy, called, facts = answers(served, *data, "--url", served.proxy)
    assert facts["manner"] == "address"
    assert accuracy > 0.7
    assert facts["right_among_5"] is None  # of five classes the truth is always one of five
    for manner in ("address", "forward", "redirect"):
        found = answers(served, *data, "--url", served.proxy, f"--via={manner}", "--concurrency=3")
        assert found[:2] == (accuracy, called)
        # Scores as well: who forwards changes nothing.
        assert [one["prediction"] for one in found[2]["answers"]] == [one["prediction"] for one in facts["answers"]]
    for form in ("tfserving", "npy", "openinference"):
        found = answers(served, *data, "--url", served.proxy, f"--protocol={form}")
        assert found[:2] == (accuracy, called)
    for path in ("v1/models/flowers:predict", "v2/models/flowers/infer", "v1/models/flowers/versions/1:image"):
        assert answers(served, *data, "--url", f"{served.worker}/{path}")[:2] == (accuracy, called)


def test_digits_in_every_form(served: Served, shared_data: Path) -> None:
    """The post's own model. MNIST's digits upright, as it wants them; and turned over, as it does not."""
    data = ["--data", str(shared_data / "emnist/mnist"), "--model=emnist", "--n=100", "--url", served.worker]
    accuracy, called, facts = answers(served, *data)
    assert 0.6 < accuracy < 0.8  # the whole set: 0.689
    assert facts["right_among_own_classes"] > facts["right"]
    assert facts["right_among_5"] > facts["right"]
    for form in ("fairway", "tfserving", "npy", "openinference"):
        assert answers(served, *data, f"--protocol={form}")[:2] == (accuracy, called)
    assert answers(served, *data, "--signature=predict_images")[:2] == (accuracy, called)
    assert answers(served, *data, "--signature=predict_images", "--protocol=npy")[:2] == (accuracy, called)
    assert answers(served, *data, "--transpose")[0] < 0.2


def test_which_of_several_models(served: Served, shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(shared_data / "emnist/mnist"), "--url", served.worker]
    assert evaluate(data) == 78
    assert "it serves emnist, flowers: which one? Say --model NAME" in capsys.readouterr().err
    assert evaluate([*data, "--model=roses"]) == 78
    assert "roses" in capsys.readouterr().err
    assert evaluate([*data, "--model=flowers"]) == 78
    assert "takes 28x28x3, and the pictures are 28x28" in capsys.readouterr().err


def test_a_broken_photo_is_named_and_counted(
    served: Served, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "daisy").mkdir()
    for photo in sorted((shared_data / "flowers/daisy").glob("*.jpg"))[:3]:
        shutil.copy(photo, tmp_path / "daisy")
    (tmp_path / "daisy/broken.jpg").write_bytes(photo.read_bytes()[:3000])
    (tmp_path / "daisy/lost.jpg").symlink_to("/nowhere")
    assert evaluate(["--data", str(tmp_path), "--model=flowers", "--url", served.proxy]) == 1
    said = capsys.readouterr().out
    assert "1 of 5: refused by the model's server" in said
    assert "1 of 5: the file could not be read" in said
    assert " of 3; 95 % interval" in said
    assert "daisy/broken.jpg" in said


def test_the_posts_functions_in_every_form(
    served: Served, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model = str(shared_data / "emnist/mnist"), f"{served.worker}/v1/models/emnist"
    said = set()
    for protocol, url in (
        ("json", f"{model}:predict"), ("tfserving", f"{model}:predict"), ("npy", f"{model}:predict"),
        ("openinference", f"{served.worker}/v2/models/emnist/infer"), ("upload", f"{model}:image"),
    ):  # fmt: skip
        given: Any = {"emnist_folder_path": folder, "protocol": protocol, "keep_alive": True}
        assert len(eval_serving_performance(50, 0, url, **given)) == 50
        said.add(capsys.readouterr().out)
        if protocol != "upload":
            assert eval_throughput(0.2, url, 128, **given)[0] % 128 == 0
            assert "Throughput Summary" in capsys.readouterr().out
    (only,) = said
    assert only.startswith("Accuracy on 50 test images: 7")
