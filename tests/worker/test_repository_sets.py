"""Many models: those of a folder, those of a configuration file, those that an operator sends; and loads that go wrong."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from pathlib import Path

import pytest

from fairway.worker.errors import BadRequest, ConfigurationError, ModelError, NotFound
from fairway.worker.model import Model
from fairway.worker.model_config import ModelConfig, ModelEntry
from fairway.worker.versions import Policy

from .shelf import opened, publish


def configure(path: Path, *models: str) -> None:
    """Each `name`, or `name rest of its configuration`; its folder is the one of that name beside the file."""
    entries = []
    for model in models:
        name, _, rest = model.partition(" ")
        entries.append(f'config {{ name: "{name}" base_path: "{name}" model_platform: "tensorflow" {rest} }}')
    fresh = path.with_name("fresh.config")
    fresh.write_text(f"model_config_list {{ {' '.join(entries)} }}")
    fresh.rename(path)


# -- a folder of models ---------------------------------------------------------------------------------------------


async def test_every_model_of_a_folder(tmp_path: Path) -> None:
    publish(tmp_path / "b", 2)
    publish(tmp_path / "a", 1)
    async with opened(polled=True, models=str(tmp_path)) as shelf:
        assert shelf.repository.served() == ("a/1", "b/2")
        assert (await shelf.added(), await shelf.added("b")) == (1, 2)
        publish(tmp_path / "0", 3)
        await shelf.until("a/1", "b/2", "0/3")
        assert await shelf.added() == 1, "who came later is not what is meant where nobody is named"
        shutil.rmtree(tmp_path / "b")
        await shelf.until("a/1", "0/3")
        with pytest.raises(NotFound):
            shelf.repository.find("b")


async def test_a_model_that_was_removed_and_comes_back(tmp_path: Path) -> None:
    publish(tmp_path / "a", 1)
    publish(tmp_path / "b", 1)
    async with opened(models=str(tmp_path)) as shelf:
        shutil.rmtree(tmp_path / "b")
        await shelf.repository.reload()
        assert shelf.repository.served() == ("a/1",)
        publish(tmp_path / "b", 1, 7)
        await shelf.repository.reload()
        assert await shelf.added("b") == 7


async def test_a_worker_may_start_with_an_empty_folder(tmp_path: Path) -> None:
    async with opened(polled=True, models=str(tmp_path)) as shelf:
        assert not shelf.repository.ready
        publish(tmp_path / "a", 1)
        await shelf.until("a/1")
        assert shelf.repository.ready


async def test_a_folder_that_is_empty_all_at_once_ends_no_service(tmp_path: Path) -> None:
    publish(tmp_path / "a", 1)
    async with opened(models=str(tmp_path)) as shelf:
        shutil.rmtree(tmp_path / "a")
        await shelf.repository.reload()
        assert await shelf.added() == 1
        assert "empty all at once" in shelf.repository.trouble


async def test_a_newcomer_that_is_broken_makes_nobody_unready(tmp_path: Path) -> None:
    publish(tmp_path / "a", 1)
    async with opened(models=str(tmp_path)) as shelf:
        publish(tmp_path / "b", 1, broken=True)
        await shelf.repository.reload()
        assert shelf.message("b", 1)
        assert shelf.repository.ready
        assert shelf.repository.names() == ["a", "b"]


async def test_one_that_is_broken_at_the_start_is_what_is_waited_for(tmp_path: Path) -> None:
    publish(tmp_path / "a", 1)
    publish(tmp_path / "b", 1, broken=True)
    async with opened(models=str(tmp_path)) as shelf:
        assert await shelf.added("a") == 1
        assert not shelf.repository.ready
        publish(tmp_path / "b", 2)
        await shelf.repository.reload()
        assert shelf.repository.ready


# -- a configuration file -------------------------------------------------------------------------------------------


async def test_a_configuration_file_and_its_edits(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        publish(tmp_path / name, 1)
        publish(tmp_path / name, 2)
    file = tmp_path / "models.config"
    configure(file, "one", "two model_version_policy { all {} }")
    async with opened(polled=True, model_config=str(file)) as shelf:
        assert shelf.repository.served() == ("one/2", "two/1", "two/2")
        configure(file, "two", "three")
        await shelf.until("two/2", "three/2")
        with pytest.raises(NotFound):
            shelf.repository.find("one")
        assert shelf.repository.find().name == "two"
        configure(file, "three", "two")
        await shelf.repository.reload()
        assert shelf.repository.find().name == "three"


async def test_a_bad_edit_keeps_the_set_and_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish(tmp_path / "one", 1)
    file = tmp_path / "models.config"
    configure(file, "one")
    async with opened(model_config=str(file)) as shelf:
        file.write_text("model_config_list { config { nam: 'one' } }")
        with caplog.at_level(logging.WARNING):
            await shelf.repository.reload()
            await shelf.repository.reload()
        assert await shelf.added("one") == 1
        assert shelf.repository.ready
        assert "nam" in shelf.repository.trouble
        assert len([r for r in caplog.records if "models.config" in r.getMessage()]) == 1, "said once"
        configure(file, "one")
        await shelf.repository.reload()
        assert shelf.repository.trouble == ""


async def test_a_configured_model_without_versions_is_named_and_waited_for(tmp_path: Path) -> None:
    publish(tmp_path / "one", 1)
    file = tmp_path / "models.config"
    configure(file, "one", "two")
    async with opened(polled=True, model_config=str(file)) as shelf:
        assert shelf.repository.names() == ["one"]
        assert not shelf.repository.ready
        assert "two" in shelf.repository.trouble
        publish(tmp_path / "two", 5)
        await shelf.until("one/1", "two/5")
        assert shelf.repository.ready


async def test_a_label_moves_when_its_new_version_is_served(tmp_path: Path) -> None:
    publish(tmp_path / "m", 1)
    file = tmp_path / "models.config"
    label = 'model_version_policy {{ specific {{ versions: {0} }} }} version_labels {{ key: "stable" value: {0} }}'
    configure(file, "m " + label.format(1))
    async with opened(model_config=str(file)) as shelf:
        configure(file, "m " + label.format(2))
        await shelf.repository.reload()
        assert await shelf.added("m", label="stable") == 1
        publish(tmp_path / "m", 2, broken=True)
        await shelf.repository.reload()
        assert await shelf.added("m", label="stable") == 1
        publish(tmp_path / "m", 2)
        await shelf.repository.reload()
        assert await shelf.added("m", label="stable") == 2
        assert shelf.repository.served() == ("m/2",)


async def test_a_model_whose_folder_is_another_one_now(tmp_path: Path) -> None:
    publish(tmp_path / "one", 1)
    publish(tmp_path / "two", 1, 7)
    file = tmp_path / "models.config"
    file.write_text('model_config_list { config { name: "m" base_path: "one" } }')
    async with opened(model_config=str(file)) as shelf:
        assert await shelf.added("m") == 1
        file.write_text('model_config_list { config { name: "m" base_path: "two" } }')
        await shelf.repository.reload()
        assert await shelf.added("m") == 7


# -- what an operator sends -----------------------------------------------------------------------------------------


async def test_another_set_replaces_the_whole(tmp_path: Path) -> None:
    for name in ("one", "two"):
        publish(tmp_path / name, 1)
    async with opened(model=str(tmp_path / "one")) as shelf:
        await shelf.repository.apply(ModelConfig((ModelEntry("two", str(tmp_path / "two")),)))
        assert shelf.repository.served() == ("two/1",)
        assert await shelf.added() == 1


async def test_a_set_of_which_one_does_not_load_says_so_and_is_wanted_all_the_same(tmp_path: Path) -> None:
    publish(tmp_path / "one", 1)
    publish(tmp_path / "two", 1, broken=True)
    entries = ModelEntry("one", str(tmp_path / "one")), ModelEntry("two", str(tmp_path / "two"))
    async with opened(model=str(tmp_path / "one")) as shelf:
        with pytest.raises(ModelError, match=r"1 servable\(s\) did not become available: two: .*model\.tflite"):
            await shelf.repository.apply(ModelConfig(entries))
        publish(tmp_path / "two", 2)
        await shelf.repository.reload()
        assert shelf.repository.served() == ("one/1", "two/2")


async def test_a_label_for_what_is_not_served_is_refused(tmp_path: Path) -> None:
    publish(tmp_path / "one", 1)
    async with opened(model=str(tmp_path / "one")) as shelf:
        entry = ModelEntry("one", str(tmp_path / "one"), Policy(), {"stable": 1, "canary": 9})
        with pytest.raises(BadRequest) as caught:
            await shelf.repository.apply(ModelConfig((entry,)))
        assert str(caught.value) == (
            "Request to assign label to version 9 of model one, which is not currently available for inference"
        )
        assert await shelf.added("one", label="stable") == 1


async def test_a_runtime_that_a_configuration_forces(tmp_path: Path) -> None:
    publish(tmp_path / "one", 1)
    entry = ModelEntry("one", str(tmp_path / "one"), runtime="torch")
    async with opened(model=str(tmp_path / "one")) as shelf:
        with pytest.raises(ModelError, match="torch"):
            await shelf.repository.apply(ModelConfig((ModelEntry("two", entry.path, runtime="torch"), entry)))


# -- loads that go wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("some library's trouble"), "RuntimeError: some library's trouble"),
        (MemoryError(), "MemoryError"),
        (SystemExit(3), "wanted to end the process: 3"),
    ],
)
async def test_whatever_a_load_raises_is_a_load_that_failed(tmp_path: Path, error: BaseException, text: str) -> None:
    publish(tmp_path / "m", 1)
    async with opened(model=str(tmp_path / "m")) as shelf:

        def fail(_: str) -> None:
            raise error

        shelf.before_load = fail
        publish(tmp_path / "m", 2)
        await shelf.repository.reload()
        assert text in shelf.message("m", 2)
        assert await shelf.added() == 1


def warmed_up_by(version: Path, values: list[float]) -> None:
    """One request of TensorFlow Serving's kind, for the inputs of `adding`."""
    tf, logs = pytest.importorskip("tensorflow"), pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    log = logs.PredictionLog()
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto([values], tf.float32))
    (version / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(version / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())


async def test_a_version_that_fails_at_its_warm_up_is_not_served(tmp_path: Path) -> None:
    publish(tmp_path / "m", 1)
    async with opened(model=str(tmp_path / "m")) as shelf:
        warmed_up_by(publish(tmp_path / "m", 2), [1, 2, 3])
        await shelf.repository.reload()
        assert shelf.message("m", 2).startswith("warm-up: assets.extra/tf_serving_warmup_requests, record 1: input 'x'")
        assert await shelf.added() == 1
        warmed_up_by(publish(tmp_path / "m", 3), [1, 2])
        await shelf.repository.reload()
        assert await shelf.added() == 3


async def test_a_version_that_hangs_at_its_warm_up_holds_up_nobody(tmp_path: Path) -> None:
    go = threading.Event()

    def stand_still(model: Model) -> None:
        if model.version == 2:
            model.loaded.run = lambda *_: go.wait(60)  # type: ignore

    publish(tmp_path / "m", 1)
    async with opened(model=str(tmp_path / "m"), hang_seconds=0.2) as shelf:
        shelf.after_load = stand_still
        warmed_up_by(publish(tmp_path / "m", 2), [1, 2])
        await shelf.repository.reload()
        assert shelf.message("m", 2) == "warm-up: a request did not end in 0.2 s"
        assert await shelf.added() == 1
        publish(tmp_path / "m", 3)
        await shelf.repository.reload()
        assert await shelf.added() == 3
        assert shelf.engine.alive
        go.set()


async def test_what_the_metrics_say(tmp_path: Path) -> None:
    publish(tmp_path / "m", 1)
    async with opened(model=str(tmp_path / "m")) as shelf:
        publish(tmp_path / "m", 2, broken=True)
        await shelf.repository.reload()
        lines = shelf.repository.metrics().splitlines()
        for line in (
            'fairway_worker_version_state{model="m",version="2",state="START",code="INVALID_ARGUMENT"} 1',
            'fairway_worker_version_state{model="m",version="1",state="AVAILABLE",code="OK"} 1',
            'fairway_worker_versions_loaded{model="m"} 1',
            'fairway_worker_versions_failed{model="m"} 1',
            "fairway_worker_repository_trouble 0",
        ):
            assert line in lines
        shutil.rmtree(tmp_path / "m")
        await shelf.repository.reload()
        assert "fairway_worker_repository_trouble 1" in shelf.repository.metrics().splitlines()


async def test_a_worker_that_is_told_to_end_while_it_loads_does_not_wait_for_that(tmp_path: Path) -> None:
    publish(tmp_path / "m", 1)
    held = threading.Event()
    async with opened(model=str(tmp_path / "m")) as shelf:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def hold(_: str) -> None:
            loop.call_soon_threadsafe(begun.set)
            held.wait(30)

        shelf.before_load = hold
        publish(tmp_path / "m", 2)
        reloading = asyncio.create_task(shelf.repository.reload())
        await begun.wait()
        async with asyncio.timeout(10):
            await shelf.repository.close()
        assert shelf.repository.served() == ()
        reloading.cancel()
        held.set()


async def test_models_load_one_at_a_time(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        publish(tmp_path / name, 1)
    met: list[bool] = []

    def meet(_: str) -> None:
        """Two that load at once would find each other here."""
        try:
            barrier.wait(0.2)
            met.append(True)
        except threading.BrokenBarrierError:
            barrier.reset()
            met.append(False)

    barrier = threading.Barrier(2)
    async with opened(models=str(tmp_path)) as shelf:
        shelf.before_load = meet
        for name in ("a", "b", "c"):
            publish(tmp_path / name, 2)
        await shelf.repository.reload()
        assert met == [False, False, False]
        assert shelf.loads == ["a/1", "b/1", "c/1", "a/2", "b/2", "c/2"]


async def test_a_start_with_nothing_but_a_configuration_that_is_broken(tmp_path: Path) -> None:
    (tmp_path / "models.config").write_text("nonsense {")
    with pytest.raises(ConfigurationError, match=r"models\.config"):
        async with opened(model_config=str(tmp_path / "models.config")):
            pass
