"""The EMNIST post's functions against a web service as the post has it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fairway.client import errors
from fairway.client.evaluating import eval_serving_performance, eval_throughput
from fairway.client.evaluating.emnist import _called, load_emnist
from fairway.client.evaluating.forms import Heard
from fairway.worker.dataset import idx
from fairway.worker.errors import ConfigurationError

from .standin import StandIn, digits, standing_in
from .test_labelled import a_set


@pytest.fixture
def server() -> Iterator[StandIn]:
    with standing_in() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = tmp_path_factory.mktemp("emnist_data")
    a_set(found, "t10k-", 60)
    a_set(found, "train-", 90)
    return str(found)


def truly_right(server: StandIn, chosen: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int:
    pictures, numbers = digits(60, 1)
    scores = server.scores(pictures[chosen].reshape(-1, 64) / np.float32(255))
    return int((scores.argmax(1) == numbers[chosen]).sum())


def test_accuracy_and_milliseconds(server: StandIn, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = eval_serving_performance(40, 2, server.url, 7, emnist_folder_path=folder)
    said = capsys.readouterr().out
    assert len(found) == 40
    assert min(found) > 0
    np.random.seed(7)
    chosen = np.random.choice(np.arange(60), 40, replace=False)
    right = truly_right(server, chosen)
    assert 20 < right < 40  # neither chance nor perfection, so that the figure says something
    assert f"Accuracy on 40 test images: {right / 40:.2%}\n" in said
    numbers = digits(60, 1)[1]
    assert re.findall(r"^Label: (.*)", said, re.MULTILINE) == [str(numbers[i]) for i in chosen[:2]]
    assert len(re.findall(r"^Predicted Label: .", said, re.MULTILINE)) == 2
    # One request an example, one row in it, each over a connection of its own, as `requests.post` has it.
    assert [rows.shape for rows in server.asked] == [(1, 64)] * 40
    assert server.connections == 40
    np.testing.assert_allclose(server.asked[0][0], digits(60, 1)[0][chosen[0]].reshape(64) / 255, atol=1e-6)


def test_more_than_there_are(server: StandIn, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = eval_serving_performance(1000, 0, server.url, emnist_folder_path=folder, keep_alive=True)
    assert len(found) == 60
    assert "1000 examples were asked for, and there are 60" in capsys.readouterr().out
    assert server.connections == 1


@pytest.mark.parametrize("protocol", ["json", "tfserving"])
def test_throughput_counts_examples(
    server: StandIn, folder: str, protocol: str, capsys: pytest.CaptureFixture[str]
) -> None:
    count, rate = eval_throughput(0.3, server.url, 25, "train", emnist_folder_path=folder, protocol=protocol)  # type: ignore[arg-type]
    assert count == 25 * len(server.asked) > 0
    assert rate == count / 0.3
    assert f"Total Requests: {count}\nRequests/Second: {rate:.2f}\n" in capsys.readouterr().out
    # Consecutive slices of the set, and from its beginning again when no whole one is left.
    pictures = digits(90, 1)[0].reshape(-1, 64) / 255
    for number, rows in enumerate(server.asked):
        at = number % 3 * 25
        np.testing.assert_allclose(rows, pictures[at : at + 25], atol=1e-6)


def test_what_will_not_do(server: StandIn, folder: str, tmp_path: Path) -> None:
    (tmp_path / "emnist-byclass.mat").touch()
    wrong: list[tuple[dict[str, object], str]] = [
        ({"use_graphpipe": True}, "protocol='npy'"),
        ({"dataset": "validation"}, "expected test or train"),
        ({"emnist_folder_path": "/nowhere"}, "no emnist-byclass-test-images-idx3-ubyte.gz in it"),
        ({"emnist_folder_path": str(tmp_path)}, "take NIST's gzip.zip"),
        ({"protocol": "pigeon"}, "protocol 'pigeon': expected json"),
        ({"protocol": "openinference"}, "expected http://HOST:PORT/v2/models/NAME/infer"),
    ]
    for arguments, reason in wrong:
        given = {"emnist_folder_path": folder, **arguments}
        with pytest.raises(ConfigurationError, match=reason):
            eval_serving_performance(3, 0, server.url, **given)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=reason):
            eval_throughput(1, server.url, **given)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="one picture"):
        eval_throughput(1, server.url, 2, emnist_folder_path=folder, protocol="upload")
    with pytest.raises(ConfigurationError, match="60 examples"):
        eval_throughput(1, server.url, 61, emnist_folder_path=folder)
    with pytest.raises(ConfigurationError, match="no address"):
        eval_serving_performance(3, 0, "ftp://127.0.0.1", emnist_folder_path=folder)
    assert not server.asked


def test_the_alphabet_is_of_the_file_and_not_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    a_set(tmp_path / "letters", "t10k-", 5)
    data = load_emnist(str(tmp_path / "letters"))
    assert _called(Heard(np.eye(10)[[7]]), data) == "7"


def test_of_no_examples_there_is_no_accuracy(server: StandIn, folder: str) -> None:
    with pytest.raises(ConfigurationError, match="n_examples 0: at least 1"):
        eval_serving_performance(0, 0, server.url, emnist_folder_path=folder)


def test_a_server_that_dies_is_an_error(server: StandIn, folder: str) -> None:
    server.answering = lambda number: server.die() if number == 3 else None
    with pytest.raises(errors.Unreachable, match="no answer from http://127"):
        eval_serving_performance(10, 0, server.url, emnist_folder_path=folder)
    assert len(server.asked) == 3


def test_what_is_no_answer(server: StandIn, folder: str) -> None:
    with pytest.raises(errors.WorkerFailed, match="answered 400: rows are wanted"):
        eval_serving_performance(1, 0, server.url, emnist_folder_path=folder, protocol="npy", keep_alive=True)


def test_emnists_own_files_are_turned_upright(tmp_path: Path) -> None:
    (tmp_path / "gzip").mkdir()
    for kind in ("test", "train"):
        a_set(tmp_path / "gzip", f"emnist-byclass-{kind}-", 12, packed=kind == "test")
        np.testing.assert_array_equal(load_emnist(str(tmp_path), kind).images, digits(12, 1)[0].transpose(0, 2, 1))


def test_which_way_up_the_posts_model_wants_them(shared_data: Path) -> None:
    """MNIST stands upright, and so does what the loader gives; ink of an upright 1 is higher than wide."""
    data = load_emnist(str(shared_data / "emnist/mnist"))
    ones = data.images[data.labels == 1].sum(0)
    assert np.count_nonzero(ones.sum(1) > 10_000) > np.count_nonzero(ones.sum(0) > 10_000)
    assert data.of.endswith("t10k-images-idx3-ubyte.gz")
    assert idx.encode(data.images[:1])[:4] == b"\0\0\x08\3"
