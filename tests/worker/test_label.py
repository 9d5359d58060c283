"""`fairway label`: label_image's lines, each picture when it is named, whatever becomes of the others."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import pytest

from fairway.worker.label import label
from fairway.worker.offline import dashed, ended

from ..cluster.processes import FAIRWAY, Running
from ..conftest import ROOT, picture
from .colours import plain

GRAY = "python:tests.worker.odd_model:Moody"  # how dark, and how bright
DARK, BRIGHT = "#333333", "#999999"  # 0.2, and 0.6 of white


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the model can be imported."""
    monkeypatch.chdir(ROOT)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with one picture of each of two grays, and what is none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / "bright.png").write_bytes(plain(BRIGHT))
    (folder / "more" / "dark.gif").write_bytes(plain(DARK, format="GIF"))
    (folder / "notes.txt").write_text("not for looking at")
    return folder


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*FAIRWAY, "label", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # it is the command that must not wait
    )  # fmt: skip


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """-> exit status, what stands on standard output, and on standard error."""
    status = label([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_one_picture_gets_label_images_lines_alone(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, "--model", GRAY, photos / "bright.png")
    assert (status, out) == (0, "bright (score = 0.60000)\ndark (score = 0.40000)\n")


def test_of_several_the_name_stands_above(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bright, dark = photos / "bright.png", photos / "more" / "dark.gif"
    status, out, _ = said(capsys, "--model", GRAY, "--top=1", dark, photos)
    assert status == 0
    assert out.splitlines() == [
        str(dark), "dark (score = 0.80000)", str(bright), "bright (score = 0.60000)", str(dark), "dark (score = 0.80000)",
    ]  # fmt: skip


def test_the_flags_of_label_image(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "names.txt").write_text("night\nday\n")
    status, out, _ = said(
        capsys, "--graph", GRAY, "--image", photos / "bright.png", "--num_top_predictions=1", "--labels",
        tmp_path / "names.txt", "--input_width", "4", "--input_height=4", "--input_mean=51", "--input_std", "1",
        "--input_layer=image:0", "--output_layer", "scores:0",
    )  # fmt: skip
    assert (status, out) == (0, "night (score = 0.60000)\n")  # (153 - 51) / 255 is bright


@pytest.mark.parametrize(
    ("line", "understood"),
    [
        (["--input_mean=1_0", "a_b.jpg"], ["--input-mean=1_0", "a_b.jpg"]),
        (["-", "--num_top_predictions", "3"], ["-", "--num-top-predictions", "3"]),
        (["--json", "--", "--odd_name.jpg"], ["--json", "--", "--odd_name.jpg"]),
        ([], []),
    ],
)
def test_underscores_in_flags(line: Sequence[str], understood: Sequence[str]) -> None:
    assert dashed(line) == understood


def test_json_for_programs(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = said(capsys, photos / "bright.png", "--model", GRAY, "--json", photos / "none.png")
    assert status == 1
    assert [json.loads(line) for line in out.splitlines()] == [
        {"file": str(photos / "bright.png"), "predictions": [["bright", 0.6], ["dark", 0.4]]},
        {"file": str(photos / "none.png"), "error": "No such file or directory"},
    ]


def test_it_goes_on_after_a_bad_file(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = photos / "broken.jpg"
    broken.write_bytes(plain(DARK, format="JPEG")[:200])
    bad = [photos / "none.png", photos / "notes.txt", broken]
    status, out, err = said(capsys, "--model", GRAY, "--top=1", *bad, photos / "bright.png")
    assert (status, out) == (1, f"{photos / 'bright.png'}\nbright (score = 0.60000)\n")
    lines = [line for line in err.splitlines() if line.startswith(str(photos))]
    assert [line.partition(": ")[0] for line in lines] == [str(path) for path in bad]
    assert re.search("No such file.*not an image.*broken image", " ".join(lines))
    assert "3 of 4 failed" in err


def test_a_file_that_is_too_large_is_not_read_whole(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (photos / "large.png").open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room
    status, _, err = said(capsys, "--model", GRAY, photos / "large.png", "--max-bytes=1000")
    assert status == 1
    assert "at most 1000 are accepted" in err


def test_a_name_that_is_no_text(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = os.fsencode(photos) + b"/caf\xe9.png"
    Path(os.fsdecode(odd)).write_bytes(plain(BRIGHT))
    status, out, _ = said(capsys, "--model", GRAY, photos, "--top=1")
    assert status == 0
    assert "caf\N{REPLACEMENT CHARACTER}.png" in out


def test_a_folder_without_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, "--model", GRAY, tmp_path)
    assert (status, out) == (1, "")
    assert "no images in" in err


def test_names_on_standard_input_are_answered_one_by_one(photos: Path) -> None:
    with started("--model", GRAY, "--top=1", "-") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        # The next name comes only when the one before has been answered.
        for name, line in (("bright.png", "bright (score = 0.60000)"), ("more/dark.gif", "dark (score = 0.80000)")):
            process.stdin.write(f"{photos / name}\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{photos / name}\n"
            assert process.stdout.readline() == f"{line}\n"
        process.stdin.write("\nnone.png\n")
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "none.png: No such file or directory" in err


def test_who_reads_may_have_seen_enough(photos: Path) -> None:
    # `yes bright.png | fairway label - | head -1`: there would always be another name.
    with (
        subprocess.Popen(["yes", photos / "bright.png"], stdout=subprocess.PIPE) as names,
        subprocess.Popen(
            [*FAIRWAY, "label", "--model", GRAY, "-"],
            stdin=names.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        ) as process,
    ):  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == f"{photos / 'bright.png'}\n"
            process.stdout.close()
            assert process.wait(60) == 0
            err = process.stderr.read()
        finally:
            names.kill()
            process.kill()
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_interrupted_while_it_waits_for_names(photos: Path) -> None:
    with started("--model", GRAY, "-") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{photos / 'bright.png'}\n")
        process.stdin.flush()
        process.stdout.readline()  # so it waits for the next one
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


NOTHING = "no such model: nothing; bundled: flowers"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--model=nothing"], NOTHING),
        (["--model=README.md"], "README.md: not a kind of model that is known"),
        (["--model=python:no_such_module:Model"], "python:no_such_module:Model"),
        ([f"--model={GRAY}", "--top=0"], "--top: at least 1"),
        ([f"--model={GRAY}", "--top=many"], "--top: 'many' will not do"),
        ([f"--model={GRAY}", "--labels=nowhere.txt"], "cannot read the labels file nowhere.txt"),
        ([f"--model={GRAY}", "--labels=LICENSE"], r"LICENSE has \d+ labels, but the model has 2 outputs"),
        ([f"--model={GRAY}", "--runtime=warp"], "--runtime warp: expected one of"),
        ([f"--model={GRAY}", "--input_layer=Placeholder"], "has no such input; it has image"),
        (
            [f"--model={GRAY}", "--output_layer=logits"],
            "has no such output; it has scores; scores are read from scores",
        ),
    ],
)
def test_what_cannot_be(more: list[str], why: str, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = said(capsys, *more, photos / "bright.png")
    assert (status, out) == (78, "")
    (line,) = [line for line in err.splitlines() if line.startswith("fairway: ")]
    assert re.search(why, line)


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with ended() as status:
        raise OSError(28, "No space left on device", "out.tflite")
    assert status[-1] == 1
    assert capsys.readouterr().err == "fairway: [Errno 28] No space left on device: 'out.tflite'\n"


def test_no_image_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        label(["--model", GRAY])
    assert caught.value.code == 2
    assert "no image" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["label", "show"])
def test_the_light_installation_names_what_is_missing(command: str) -> None:
    program = (
        "import sys; sys.modules['numpy'] = None; from fairway.__main__ import main; "
        f"sys.exit(main(['{command}', '{GRAY}', *(['a.jpg'] if '{command}' == 'label' else [])]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (78, "")
    assert "(numpy is missing): pip install 'fairway[tensorflow]'" in done.stderr


def served(arguments: Sequence[str | Path], uploads: Sequence[bytes]) -> list[object]:
    """What a running worker answers."""
    # Nothing is measured for batches: it would take longer than all that is asked for here.
    line = [*FAIRWAY, "worker", "--registry=none", "--port=0", "--batching=off", "--drain-seconds=0"]
    with Running([*line, *map(str, arguments)]) as worker:
        port = worker.line(r"serving .* on http://127\.0\.0\.1:(\d+)/")[1]
        answers = []
        for upload in uploads:
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/", data=upload, headers={"Content-Type": "image/jpeg"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                answers.append(json.load(answer))
    return answers


def test_the_numbers_are_a_workers_for_a_quantised_model(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ai_edge_litert")
    folder = shared_data / "models/coral_tflite"
    model: list[str | Path] = [
        "--model", folder / "mobilenet_v2_1.0_224_quant.tflite", "--labels", folder / "imagenet_labels.txt",
        "--choices", tmp_path,
    ]  # fmt: skip
    named = sorted((shared_data / "photos").glob("*.jpg"))
    answers = served(model, [path.read_bytes() for path in named])
    status, out, _ = said(capsys, *model, "--json", *named)
    assert status == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert found == [{"file": str(path), "predictions": said} for path, said in zip(named, answers, strict=True)]
    assert found[0]["predictions"][0][0] == "Egyptian cat"


def test_the_numbers_are_a_workers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorflow")
    uploads = [picture(seed) for seed in range(8)]
    names = [tmp_path / f"{seed}.jpg" for seed in range(8)]
    for name, upload in zip(names, uploads, strict=True):
        name.write_bytes(upload)
    model = ["--model=flowers", "--runtime=tensorflow"]
    answers = served(model, uploads)
    status, out, _ = said(capsys, *model, "--json", *names)
    assert status == 0
    assert [json.loads(line)["predictions"] for line in out.splitlines()] == answers


def test_layers_of_the_articles_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tf = pytest.importorskip("tensorflow")
    graph = tf.Graph()
    with graph.as_default():
        contents = tf.compat.v1.placeholder(tf.string, (), name="DecodeJpeg/contents")
        pixels = tf.cast(tf.raw_ops.DecodeJpeg(contents=contents, channels=3, name="DecodeJpeg"), tf.float32)
        amounts = tf.reduce_sum(pixels, axis=(0, 1))[None]
        tf.identity(amounts / tf.reduce_sum(amounts), name="final_result")
    (tmp_path / "output_graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    (tmp_path / "output_labels.txt").write_text("red\ngreen\nblue\n")
    red = tmp_path / "red.png"  # which label_image of TensorFlow 1 could not read with such a graph
    red.write_bytes(plain("#c02020"))
    whole: list[str | Path] = ["--runtime=tensorflow", f"--graph={tmp_path / 'output_graph.pb'}", "--top=1", red]

    # label_image's own defaults.
    given = ["--input_layer=DecodeJpeg/contents:0", "--output_layer=final_result:0"]
    assert said(capsys, *whole, *given)[:2] == (0, "red (score = 0.75000)\n")
    for layer in ("--output_layer=softmax", "--input_layer=Mul"):
        status, _, err = said(capsys, *whole, layer)
        assert status == 78
        (line,) = [line for line in err.splitlines() if line.startswith("fairway: ")]
        assert layer.partition("=")[2] in line


def test_a_graph_that_decodes_nothing_has_no_decoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tf = pytest.importorskip("tensorflow")
    graph = tf.Graph()
    with graph.as_default():
        pixels = tf.compat.v1.placeholder(tf.float32, (None, 4, 4, 3), name="input")
        amounts = tf.reduce_sum(pixels, axis=(1, 2))
        tf.identity(amounts / tf.reduce_sum(amounts, axis=1, keepdims=True), name="final_result")
    (tmp_path / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    (tmp_path / "blue.png").write_bytes(plain("#2020c0"))
    # As TensorFlow for Poets called its label_image.
    line: list[str | Path] = [
        "--runtime=tensorflow", "--graph", tmp_path / "graph.pb", "--input_mean=0", "--input_std=255", "--top=1",
        "--image", tmp_path / "blue.png", "--output_layer=final_result",
    ]  # fmt: skip
    assert said(capsys, *line, "--input_layer=input")[:2] == (0, "class 2 (score = 0.75000)\n")
    status, _, err = said(capsys, *line, "--input_layer=DecodeJpeg/contents:0")
    assert status == 78
    assert "has no such layer; it is fed at input" in err
