from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fairway.registry import Hub

from .peers import running_hub


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    async with running_hub() as hub:
        yield hub
