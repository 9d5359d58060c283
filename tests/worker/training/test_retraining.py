"""`fairway retrain` as a whole, on a set so small that each run takes a moment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from .tiny_backbone import COLOURS, colour_photos, tiny_backbone

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from fairway.worker.card import read_card  # noqa: E402
from fairway.worker.training.__main__ import retrain as command  # noqa: E402
from fairway.worker.training.config import RetrainSettings  # noqa: E402
from fairway.worker.training.features import hashed  # noqa: E402
from fairway.worker.training.retraining import retrain  # noqa: E402
from fairway.worker.training.stopping import Interrupted  # noqa: E402

Run = Callable[..., Path]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone(tmp_path_factory.mktemp("backbone") / "tiny.keras")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return colour_photos(tmp_path / "photos")


@pytest.fixture
def run(tmp_path: Path, backbone: Path, photos: Path) -> Run:
    """One run of the command's heart -> the folder of the version."""

    def run(stop: Callable[[], bool] = lambda: False, **said: Any) -> Path:
        settings = {
            "image_dir": (str(photos),),
            "out": str(tmp_path / "out"),
            "backbone": str(backbone),
            "epochs": 20,
            "weight_decay": 0.1,
        }
        return retrain(RetrainSettings(**{**settings, "learning_rate": 0.05, **said}), stop)[0]

    return run


def card_of(version: Path) -> dict[str, Any]:
    return dict(json.loads((version / "model_card.json").read_text()))


def scores(version: Path, picture: Image.Image) -> dict[str, float]:
    """What the SavedModel says, without our worker."""
    spec = read_card(version / "model_card.json")
    pixels = np.asarray(picture.resize((16, 16)), np.float32)[None]
    serve = tf.saved_model.load(str(version)).signatures["serving_default"]
    return dict(zip(spec.labels, map(float, serve(tf.constant((pixels - 127.5) / 127.5))["scores"][0]), strict=True))


def test_a_version_with_all_that_belongs_to_it(run: Run) -> None:
    version = run()
    assert version.name == "1"
    names = {path.name for path in version.iterdir()}
    assert {"saved_model.pb", "model_card.json", "labels.txt", "training.png", "confusion.png"} <= names
    assert (version / "labels.txt").read_text() == "blue\ngreen\nred\n"
    for label, colour in COLOURS.items():
        found = scores(version, Image.new("RGB", (30, 20), colour))
        assert max(found, key=found.__getitem__) == label
        assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    with Image.open(version / "training.png") as picture:
        picture.verify()


def test_the_card_tells_what_was_done(run: Run) -> None:
    card = card_of(run(validation_percentage=20.0, testing_percentage=20.0))
    counted = {label: sum(parts.values()) for label, parts in card["data"]["photos"].items()}
    assert counted == {"blue": 12, "green": 12, "red": 12}
    assert card["data"]["folders"] == ["photos"]
    assert card["version"] == 1
    assert card["name"] == "out"
    assert card["test"]["photos"] == sum(parts["test"] for parts in card["data"]["photos"].values())
    assert card["test"]["interval_95"][0] <= card["test"]["top_1"] <= card["test"]["interval_95"][1]
    assert card["input"]["mean"] == [127.5]
    assert card["split"]["validation_percentage"] == 20.0
    assert card["backbone"]["features"] == 8


def test_only_what_is_new_is_computed(run: Run, photos: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = run()
    said = capfd.readouterr().out
    split = card_of(first)["data"]["photos"]
    train = sum(parts["train"] for parts in split.values())
    assert f"{36 + train} features computed" in said  # those that are learnt from mirrored as well
    assert run().name == "2"
    assert "; 0 features computed" in capfd.readouterr().out

    shutil.move(photos / "red" / "red-000.png", photos / "red" / "renamed-red-000.png")
    Image.new("RGB", (9, 9), (255, 0, 0)).save(photos / "red" / "red-001.png")
    colour_photos(photos, count=1, first=12)
    run()
    again = int(capfd.readouterr().out.partition(" features computed")[0].rpartition(" ")[2])
    # Four pictures changed or came, in one or two views; the renamed one may be learnt from now, and was not before.
    assert 4 <= again <= 9


def test_a_second_run_gives_the_same_model(run: Run) -> None:
    picture = Image.new("RGB", (30, 20), (90, 80, 120))
    assert scores(run(), picture) == scores(run(), picture)
    assert scores(run(), picture) != scores(run(seed=8), picture)


def test_a_broken_file_of_features_is_made_anew(run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run()
    (cache,) = (tmp_path / "out" / ".bottlenecks").iterdir()
    cache.write_bytes(b"not features")
    capfd.readouterr()
    run()
    assert "; 0 features computed" not in capfd.readouterr().out
    assert cache.with_name(cache.name + ".broken").read_bytes() == b"not features"


def test_broken_photos_are_named_and_set_aside(run: Run, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "red" / "bad.png").write_bytes(b"\x89PNG and then nothing")
    (photos / "red" / "copy.png").write_bytes(b"\x89PNG and then nothing")
    (photos / "blue" / "notes.jpg").write_bytes(b"no picture")
    (photos / "blue" / "gone.jpg").symlink_to(photos / "nowhere.jpg")
    card = card_of(run())
    assert card["data"]["set_aside"] == 4
    assert "red/bad.png: broken image" in "".join(card["data"]["set_aside_because"])
    assert "notes.jpg is set aside: not an image" in caplog.text
    assert "gone.jpg is set aside: No such file" in caplog.text
    assert "4 of 40 photos are set aside" in caplog.text


def test_a_copy_of_a_test_photo_is_not_learnt_from(run: Run, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "LISTING.tsv").write_text("split\tpath\nval\tred/red-003.png\nval\tblue/blue-003.png\n")
    shutil.copy(photos / "red" / "red-003.png", photos / "red" / "zz-copy.png")
    card = card_of(run())
    assert card["test"]["photos"] == 2
    assert card["split"]["test"] == "val/test rows of LISTING.tsv"
    assert "training does without them: red/zz-copy.png" in caplog.text
    assert card["data"]["set_aside_because"] == ["red/zz-copy.png: also stands in the test or validation set"]


def test_a_class_with_a_single_photo_works(run: Run, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    (photos / "white").mkdir()
    Image.new("RGB", (20, 20), (255, 255, 255)).save(photos / "white" / "one.png")
    card = card_of(run())
    assert card["data"]["photos"]["white"] == {"train": 1, "validation": 0, "test": 0}
    assert "white: a single photo" in caplog.text
    assert "red: only 12 photos; fewer than 20" in caplog.text


def test_two_folders_are_one_set(run: Run, photos: Path, tmp_path: Path) -> None:
    more = colour_photos(tmp_path / "more", count=3, first=50)
    card = card_of(run(image_dir=(str(photos), str(more))))
    assert sum(card["data"]["photos"]["red"].values()) == 15
    assert card["data"]["folders"] == ["photos", "more"]


def test_without_photos_for_validation_and_test_the_last_state_is_kept(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    version = run(testing_percentage=0.0, validation_percentage=0.0)
    card = card_of(version)
    assert "test" not in card
    assert "validation" not in card
    assert not (version / "confusion.png").exists()
    assert "no photo is left for validation" in caplog.text
    assert scores(version, Image.new("RGB", (20, 20), COLOURS["red"]))["red"] > 0.5


def test_limits_of_what_is_looked_at(run: Run) -> None:
    card = card_of(run(test_batch_size="2", validation_batch_size="1", testing_percentage=30.0))
    assert card["test"]["photos"] == 2
    assert card["validation"]["photos"] == 1


class AfterCalls:
    """Ctrl-C at the n-th look."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def __call__(self) -> bool:
        self.calls -= 1
        return self.calls < 0


def test_stopped_and_resumed_it_is_the_same_model(run: Run, tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 20), (90, 80, 120))
    whole = scores(run(train_batch_size=5), picture)
    # 36 looks while files are read; the features are there already.
    with pytest.raises(Interrupted, match=r"step 30 of \d+ is kept"):
        run(AfterCalls(36 + 30), train_batch_size=5)
    assert (tmp_path / "out" / ".retrain" / "checkpoint.npz").is_file()
    assert not (tmp_path / "out" / "2").exists()
    version = run(train_batch_size=5, resume=True)
    assert version.name == "2"
    assert scores(version, picture) == whole
    assert not (tmp_path / "out" / ".retrain").exists()


def test_stopped_while_features_are_computed_it_keeps_them(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Interrupted, match=r"16 features are kept"):
        run(AfterCalls(36 + 8 + 3), resume=True)
    run(resume=True)
    said = capfd.readouterr().out
    assert 0 < int(said.partition(" features computed")[0].rpartition(" ")[2]) < 36 + 30


def test_a_run_with_other_settings_is_not_gone_on_with(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from fairway.worker.errors import ConfigurationError

    with pytest.raises(Interrupted):
        run(AfterCalls(2000), epochs=100000, eval_step_interval=1000)
    with pytest.raises(ConfigurationError, match=r"other settings \(eval_step_interval, recipe\)"):
        run(resume=True)
    (tmp_path / "out" / ".retrain" / "checkpoint.npz").write_bytes(b"PK\3\4")
    (tmp_path / "out" / ".retrain" / "network.weights.h5").write_bytes(b"of that run, and not to be looked at")
    run(resume=True)
    assert "cannot be read" in caplog.text


def test_a_run_with_another_split_is_not_gone_on_with(run: Run, photos: Path) -> None:
    """It would have learnt from photos of this one's test."""
    from fairway.worker.errors import ConfigurationError

    said: dict[str, Any] = {"how_many_training_steps": 100000, "eval_step_interval": 1000, "resume": True}
    with pytest.raises(Interrupted):
        run(AfterCalls(2000), **said)
    with pytest.raises(ConfigurationError, match=r"other settings \(photos and split\)"):
        run(testing_percentage=40.0, **said)
    with pytest.raises(Interrupted, match=r"step [1-9]\d* of 100000"):
        run(AfterCalls(2000), **said)


def test_a_finished_fine_tuning_is_not_done_again(run: Run, tmp_path: Path) -> None:
    from fairway.worker.training import retraining

    said: dict[str, Any] = {"fine_tune": 1, "fine_tune_epochs": 1}

    def stopped(*given: Any) -> Any:
        raise Interrupted("in the test")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retraining, "_test", stopped)
        with pytest.raises(Interrupted):
            run(**said)
    assert (tmp_path / "out" / ".retrain" / "tuned.weights.h5").is_file()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retraining, "fine_tune", None)
        resumed = run(resume=True, **said)
    picture = Image.new("RGB", (30, 20), (90, 80, 120))
    assert scores(resumed, picture) == pytest.approx(scores(run(**said), picture), abs=1e-3)


def test_distortions_are_computed_once_each_epoch_and_kept(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    from fairway.worker.training import features, retraining

    said: dict[str, Any] = {"random_crop": 20.0, "random_brightness": 10.0, "epochs": 3, "train_batch_size": 10}
    looked: list[int] = []
    plain = features.compute

    def counted(*given: Any) -> Any:
        found = plain(*given)
        looked.append(found[0])
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retraining, "compute", counted)
        first = run(**said)
        train = sum(parts["train"] for parts in card_of(first)["data"]["photos"].values())
        assert looked == [train] * 3
        looked.clear()
        second = run(**said)
        assert looked == [0] * 3
    picture = Image.new("RGB", (30, 20), (90, 80, 120))
    assert scores(first, picture) == scores(second, picture)
    assert card_of(first)["training"]["random_crop"] == 20.0


def test_distorted_training_goes_on_where_it_was_stopped(run: Run) -> None:
    said: dict[str, Any] = {"random_crop": 20.0, "epochs": 3, "train_batch_size": 10}
    picture = Image.new("RGB", (30, 20), (90, 80, 120))
    with pytest.raises(Interrupted):  # somewhere in the first or second epoch's pictures
        run(AfterCalls(36 + 36 + 45), **said)
    resumed = scores(run(resume=True, **said), picture)
    assert resumed == scores(run(**said), picture)


def test_the_last_blocks_learn_as_well(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    version = run(fine_tune=1, fine_tune_epochs=1)
    card = card_of(version)
    assert "its last 1 block(s) fine-tuned" in card["description"]
    assert card["training"]["fine_tune_epochs"] == 1
    assert card["training"]["label_smoothing"] == 0.1
    assert not {"image_dir", "out", "resume"} & set(card["training"])
    assert "Final test accuracy" in capfd.readouterr().out
    assert sum(scores(version, Image.new("RGB", (20, 20), COLOURS["red"])).values()) == pytest.approx(1, abs=1e-5)


def test_the_article_s_files_and_summaries(run: Run, tmp_path: Path) -> None:
    graph = tmp_path / "graph" / "output_graph.pb"
    run(output_graph=str(graph), summaries_dir=str(tmp_path / "summaries"))
    assert graph.is_file()
    assert (graph.parent / "output_labels.txt").read_text() == "blue\ngreen\nred\n"
    (events,) = (tmp_path / "summaries" / "train").iterdir()
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(str(events)) for value in event.summary.value}
    assert {"accuracy", "cross_entropy", "weights"} <= tags


def test_without_matplotlib_there_are_no_pictures(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    import sys

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.figure", None)
        version = run()
    assert (version / "saved_model.pb").is_file()
    assert not (version / "training.png").exists()
    assert caplog.text.count("fairway[pictures]") == 1


def test_lines_as_retrain_py_wrote_them(
    tmp_path: Path, backbone: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (20, 20), COLOURS["red"]).save(photos / "blue" / "really-red.png")
    (photos / "LISTING.tsv").write_text("split\tpath\nval\tblue/really-red.png\nval\tblue/blue-003.png\n")
    line = f"--image_dir {photos} --out={tmp_path / 'out'} --backbone {backbone} --how_many_training_steps 20"
    more = "--learning_rate=0.05 --eval_step_interval 10 --print_misclassified_test_images --test_batch_size -1"
    status = command([*line.split(), *more.split()])
    said = capfd.readouterr().out
    assert status == 0
    for line in (
        r"Step 10: Train accuracy = ", "Step 20: Cross entropy = ", "Step 20: Validation accuracy = ",
        "Final test accuracy = 50.0% (N=2)", "=== MISCLASSIFIED TEST IMAGES ===",
    ):  # fmt: skip
        assert line in said
    assert said.index("=== MISCLASSIFIED") < said.index("really-red.png  red")
    assert "blue-003.png" not in said


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ([], "--image-dir is required"),
        (["--image-dir", "PHOTOS"], "--out is required"),
        (["--image-dir", "nowhere", "--out", "OUT"], "nowhere: no such folder"),
        (["--image-dir", "PHOTOS/red", "--out", "OUT"], "at least two sub-folders"),
        (["--image-dir", "PHOTOS", "--out", "OUT", "--backbone", "no.keras"], "no such file"),
        (["--image-dir", "PHOTOS", "--out", "OUT", "--testing-percentage", "95"], "leave nothing to learn from"),
        (["--image-dir", "PHOTOS", "--out", "OUT", "--test-batch-size", "-7"], "-1 for all"),
        (["--image-dir", "PHOTOS", "--out", "OUT", "--validation-batch-size", "0"], "-1 for all"),
        (["--image-dir", "PHOTOS", "--out", "OUT", "--fine-tune", "1", "--fine-tune-epochs", "0"], "at least 1"),
        (["--image-dir", "PHOTOS", "--out", "OUT", "--output-graph", "PHOTOS/red/red-000.png/g.pb"], "make its folder"),
        (["--image-dir", "PHOTOS", "--out", "OUT", "--test-batch-size", "many"], "is not a whole number"),
        (["--image-dir", "PHOTOS", "--out", "OUT", "--input-mean", "grey"], "is not a number"),
        (["--image-dir", "PHOTOS", "--out", "OUT", "--train-batch-size", "0"], "at least 1"),
        (["--image-dir", "PHOTOS", "--out", "OUT", "--output-labels", "l.txt"], "goes with --output-graph"),
        (["--image-dir", "PHOTOS", "--out", "PHOTOS/red/red-000.png"], "cannot make the model's folder"),
        (["--image-dir", "PHOTOS", "--out", "OUT", "--bottleneck-dir", "PHOTOS/red/red-000.png"], "--bottleneck-dir"),
    ],
)  # fmt: skip
def test_what_the_user_must_change_is_said(
    said: list[str], text: str, tmp_path: Path, backbone: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = [word.replace("PHOTOS", str(photos)).replace("OUT", str(tmp_path / "out")) for word in said]
    if "--backbone" not in line:
        line += ["--backbone", str(backbone)]
    assert command(line) == 78
    assert text in capfd.readouterr().err


def test_files_that_cannot_be_read_are_no_surprise(tmp_path: Path) -> None:
    from fairway.worker.dataset.folder import Photo

    keys, unread = hashed([Photo(tmp_path / "none.jpg", "x")], lambda: False)
    assert (keys, unread) == ({}, {tmp_path / "none.jpg": "No such file or directory"})


def test_a_photo_that_changed_since_it_was_read_is_set_aside(tmp_path: Path, backbone: Path) -> None:
    """Its features would stand under the content that it had."""
    from fairway.worker.dataset.folder import Photo
    from fairway.worker.training.backbone import open_backbone
    from fairway.worker.training.bottlenecks import Bottlenecks
    from fairway.worker.training.features import PLAIN, compute, rendering

    photo, opened = Photo(tmp_path / "a.png", "x"), open_backbone(str(backbone), "imagenet", 0, {})
    Image.new("RGB", (20, 20)).save(photo.path)
    keys, _ = hashed([photo], lambda: False)
    Image.new("RGB", (20, 20), (9, 9, 9)).save(photo.path)
    with Bottlenecks(tmp_path / "kept", opened.width) as kept:
        found = compute([photo], keys, (PLAIN,), kept, opened, rendering(opened.spec), lambda: False)
    assert found == (0, {photo.path: "changed while it was read"})
