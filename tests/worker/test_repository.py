"""Versions in real folders, really loaded: what is served while they come, fail, go, and are named."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairway.worker.errors import BadRequest, ConfigurationError, NotFound, NotReady
from fairway.worker.repository import Repository
from fairway.worker.versions import VersionStatus

from .shelf import POLL, adding, opened, publish


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "m"


async def test_the_latest_version_is_served(base: Path) -> None:
    for version in (1, 2, 10):
        publish(base, version)
    async with opened(model=str(base)) as shelf:
        assert shelf.repository.served() == ("m/10",)
        assert shelf.repository.ready
        assert shelf.repository.names() == ["m"]
        assert await shelf.added() == await shelf.added("m") == await shelf.added("m", 10) == 10
        assert repr(shelf.repository) == "<Repository m/10>"
        assert shelf.loads == ["m/10"]


async def test_what_is_not_there_is_named_in_tensorflow_servings_words(base: Path) -> None:
    publish(base, 1)
    async with opened(model=str(base)) as shelf:
        find, statuses = shelf.repository.find, shelf.repository.statuses
        for call, text in (
            (lambda: find("half"), "Servable not found for request: Latest(half)"),
            (lambda: find("half", 7), "Servable not found for request: Specific(half, 7)"),
            (lambda: find("m", 7), "Servable not found for request: Specific(m, 7)"),
            (lambda: find("", 7), "Servable not found for request: Specific(m, 7)"),
            (lambda: statuses("half"), "Could not find any versions of model half"),
            (lambda: statuses("m", 7), "Could not find version 7 of model m"),
        ):
            with pytest.raises(NotFound) as caught:
                call()
            assert str(caught.value) == text
        with pytest.raises(BadRequest) as refused:
            find("m", label="stable")
        assert str(refused.value) == "Unrecognized servable version label: stable"


async def test_a_version_that_is_renamed_into_place_takes_over(base: Path) -> None:
    publish(base, 1)
    async with opened(polled=True, model=str(base)) as shelf:
        publish(base, 2)
        await shelf.until("m/2")
        assert await shelf.added() == 2
        assert shelf.repository.statuses("m")[0] == VersionStatus(2, "AVAILABLE")
        publish(base, 3)
        await shelf.until("m/3")
        assert shelf.loads == ["m/1", "m/2", "m/3"]


async def test_requests_never_notice_that_versions_change(base: Path) -> None:
    publish(base, 1)
    seen: list[int] = []

    async def ask() -> None:
        while 4 not in seen:
            seen.append(await shelf.added())

    async with opened(polled=True, model=str(base)) as shelf:
        asking = [asyncio.create_task(ask()) for _ in range(4)]
        for version in (2, 3, 4):
            publish(base, version)
            await shelf.until(f"m/{version}")
        await asyncio.gather(*asking)
        assert set(seen) == {1, 2, 3, 4}


async def test_the_old_version_serves_while_the_new_one_loads(base: Path) -> None:
    publish(base, 1)
    async with opened(model=str(base)) as shelf:
        begun, go = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        def hold(name: str) -> None:
            loop.call_soon_threadsafe(begun.set)
            assert go.wait(30)

        shelf.before_load = hold
        publish(base, 2)
        reloading = asyncio.create_task(shelf.repository.reload())
        await begun.wait()
        assert shelf.states("m") == {2: "LOADING", 1: "AVAILABLE"}
        assert await shelf.added() == 1
        with pytest.raises(NotReady, match="m is being loaded"):
            shelf.repository.find("m", 2)
        go.set()
        await reloading
        assert await shelf.added() == 2


async def test_a_broken_version_is_named_and_the_old_one_stays(base: Path) -> None:
    publish(base, 1)
    async with opened(model=str(base)) as shelf:
        publish(base, 2, broken=True)
        await shelf.repository.reload()
        assert shelf.states("m") == {2: "START", 1: "AVAILABLE"}
        assert "model.tflite" in shelf.message("m", 2)
        assert shelf.repository.statuses("m", 2)[0].code == "INVALID_ARGUMENT"
        assert await shelf.added() == 1
        assert shelf.repository.ready
        with pytest.raises(NotReady):
            shelf.repository.find("m", 2)


async def test_a_broken_version_that_is_mended_takes_over(base: Path) -> None:
    publish(base, 1)
    async with opened(polled=True, model=str(base)) as shelf:
        publish(base, 2, broken=True)
        await shelf.repository.reload()
        assert shelf.message("m", 2)
        (base / "2" / "model.tflite").write_bytes(adding(2))
        await shelf.until("m/2")
        assert await shelf.added() == 2


async def test_a_worker_that_starts_with_a_broken_latest_version_serves_the_one_before(base: Path) -> None:
    publish(base, 1)
    publish(base, 2)
    publish(base, 3, broken=True)
    async with opened(model=str(base)) as shelf:
        assert await shelf.added() == 2
        assert shelf.message("m", 3)


async def test_a_worker_with_nothing_that_loads_does_not_start(base: Path) -> None:
    publish(base, 1, broken=True)
    with pytest.raises(ConfigurationError, match=r"model\.tflite"):
        async with opened(model=str(base)):
            pass


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"model": "nowhere"}, "no such model: nowhere"),
        ({"version_policy": "newest"}, "expected latest, latest:N"),
        ({"version_labels": "stable"}, "expected NAME=VERSION"),
        ({"models": "nowhere"}, "cannot read the models' folder nowhere"),
        ({"model_config": "nowhere"}, "--model-config nowhere"),
        ({"model_config": "a", "models": "b"}, "one of them"),
        ({"version_policy": "specific:7"}, "no version of it was found"),
    ],
)
async def test_settings_that_lead_nowhere(base: Path, settings: dict[str, Any], text: str) -> None:
    publish(base, 1)
    with pytest.raises(ConfigurationError, match=text):
        async with opened(**{"model": str(base)} | settings):
            pass


async def test_a_slow_copy_is_waited_for(base: Path) -> None:
    publish(base, 1)
    data, done = adding(2), threading.Event()

    def copy() -> None:
        """As over a slow line: some bytes, and then some more."""
        (base / "2").mkdir()
        with (base / "2" / "model.tflite").open("wb", buffering=0) as file:
            for start in range(0, len(data), len(data) // 20):
                file.write(data[start : start + len(data) // 20])
                done.wait(POLL / 3)

    async with opened(polled=True, model=str(base)) as shelf:
        copying = threading.Thread(target=copy)
        copying.start()
        await shelf.until("m/2")
        copying.join()
        assert shelf.loads == ["m/1", "m/2"]
        assert await shelf.added() == 2


async def test_files_that_are_replaced_are_served_when_they_load(base: Path) -> None:
    def replace(content: bytes) -> None:
        (base / "new").write_bytes(content)
        (base / "new").rename(base / "1" / "model.tflite")

    publish(base, 1)
    async with opened(model=str(base)) as shelf:
        before = shelf.repository.find()
        replace(adding(5))
        await shelf.repository.reload()
        assert await shelf.added() == 5
        assert shelf.repository.find() is not before
        replace(b"nonsense")
        await shelf.repository.reload()
        assert await shelf.added() == 5
        assert shelf.states("m") == {1: "AVAILABLE"}
        assert "model.tflite" in shelf.message("m", 1)


async def test_removing_the_newest_goes_back(base: Path) -> None:
    publish(base, 1)
    publish(base, 2)
    async with opened(model=str(base)) as shelf:
        assert await shelf.added() == 2
        shutil.rmtree(base / "2")
        await shelf.repository.reload()
        assert await shelf.added() == 1


async def test_a_folder_that_is_emptied_or_away_ends_no_service(base: Path) -> None:
    publish(base, 1)
    async with opened(model=str(base)) as shelf:
        shutil.rmtree(base / "1")
        await shelf.repository.reload()
        assert await shelf.added() == 1
        assert str(base) in shelf.repository.trouble
        shutil.rmtree(base)
        await shelf.repository.reload()
        assert await shelf.added() == 1
        assert shelf.repository.ready
        publish(base, 3)
        await shelf.repository.reload()
        assert await shelf.added() == 3
        assert shelf.repository.trouble == ""


@pytest.mark.parametrize(
    ("policy", "served"),
    [("latest:2", ("m/2", "m/3")), ("all", ("m/1", "m/2", "m/3")), ("specific:1,3", ("m/1", "m/3"))],
)
async def test_policies(base: Path, policy: str, served: tuple[str, ...]) -> None:
    for version in (1, 2, 3):
        publish(base, version)
    async with opened(model=str(base), version_policy=policy) as shelf:
        assert shelf.repository.served() == served
        assert await shelf.added() == 3
        for name in served:
            assert await shelf.added("m", int(name[2:])) == int(name[2:])


async def test_labels(base: Path) -> None:
    publish(base, 1)
    publish(base, 2)
    async with opened(model=str(base), version_labels="stable=1,canary=2") as shelf:
        assert shelf.repository.labels("m") == {"stable": 1, "canary": 2}
        assert await shelf.added("m", label="stable") == 1
        assert await shelf.added("m", label="canary") == await shelf.added("m") == 2


async def test_a_version_is_unloaded_after_its_last_request(base: Path) -> None:
    publish(base, 1)
    async with opened(polled=True, model=str(base)) as shelf:
        old = shelf.repository.find()
        asked = asyncio.create_task(shelf.engine.infer(old, {"x": np.zeros((1, 2), np.float32)}))
        publish(base, 2)
        await shelf.until("m/2")
        assert (await asked).outputs["y"][0, 0] == 1
        await shelf.repository.reload()
        with pytest.raises(NotReady, match="taken out"):
            await shelf.engine.infer(old, {"x": np.zeros((1, 2), np.float32)})


async def test_out_of_service_and_back(base: Path) -> None:
    publish(base, 1)
    async with opened(model=str(base)) as shelf:
        await shelf.repository.unload("m")
        assert shelf.states("m") == {1: "END"}
        assert not shelf.repository.ready
        assert shelf.repository.names() == ["m"]
        with pytest.raises(NotFound):
            shelf.repository.find("m")
        publish(base, 2)
        await shelf.repository.reload()
        assert shelf.repository.served() == (), "who took it out puts it back"
        await shelf.repository.load("m")
        assert await shelf.added() == 2
        for call in (shelf.repository.load, shelf.repository.unload):
            with pytest.raises(NotFound, match="Could not find any versions of model other"):
                await call("other")


async def test_thousands_of_looks_change_nothing(base: Path) -> None:
    publish(base, 1)
    async with opened(model=str(base)) as shelf:
        for _ in range(2000):
            await shelf.repository._look()
        assert shelf.loads == ["m/1"]


async def test_models_that_are_given_are_served_as_they_are(base: Path) -> None:
    publish(base, 1)
    async with opened(model=str(base)) as shelf:
        model = shelf.repository.find()
        repository = Repository([model])
        assert repository.find() is repository.find("m", 1) is model
        assert repository.ready
        assert repository.statuses("m") == [VersionStatus(1, "AVAILABLE")]
        await repository.close()


async def test_no_model_at_all() -> None:
    repository = Repository()
    assert not repository.ready
    with pytest.raises(NotReady, match="no model is served yet"):
        repository.find()
    await repository.close()
