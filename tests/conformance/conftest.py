"""Every engine in turn, one of each a file of tests; and what is skipped where an engine cannot do it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
import pytest_asyncio

from .engines import ENGINES, Engine, load
from .stage import Stage

REQUIRED = "FAIRWAY_TEST_ENGINES_REQUIRED"  # set where an engine that is not there is a failure, as in .ci/run


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    found = load(request.param)
    if isinstance(found, str):
        if os.environ.get(REQUIRED):
            pytest.fail(f"{REQUIRED} is set, and {found}")
        pytest.skip(found)
    engine = found()
    await engine.start()
    yield engine
    await engine.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def stage(engine: Engine) -> AsyncIterator[Stage]:
    with ExitStack() as exits:
        stage = Stage(engine, exits)
        try:
            yield stage
        finally:
            for store in reversed(stage.stores):
                await store.close()


@pytest.fixture
def contested(stage: Stage) -> Stage:
    if not stage.engine.takeover:
        pytest.skip(f"at {stage.engine.name}, only its owner changes an entry")
    return stage


@pytest.fixture
def durable(stage: Stage) -> Stage:
    if not stage.engine.durable:
        pytest.skip(f"{stage.engine.name} takes no rows that outlive their writer")
    return stage


@pytest.fixture
def marked(stage: Stage) -> Stage:
    if not stage.engine.marks:
        pytest.skip(f"{stage.engine.name} keeps no marks")
    return stage


@pytest.fixture(autouse=True)
def _no_stray_failures(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A task that failed unheard, or a store that caught what it did not expect, is a fault wherever it happened."""
    yield
    stray = [record for record in caplog.records if record.exc_info and record.name.startswith(("fairway", "asyncio"))]
    assert not stray, [record.getMessage() for record in stray]
