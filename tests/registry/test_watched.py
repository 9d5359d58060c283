"""A watched file: the newest good version counts, and nobody has to restart anything."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest

from fairway.registry.errors import ConfigurationError
from fairway.registry.watched import Watched, watched_tokens

OLD, NEW = "old-0123456789abcd", "new-0123456789abcd"
PATIENCE = 10.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"{OLD} read\n")
    path.chmod(0o600)
    return path


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def test_a_new_version_is_taken_up_by_itself(file: Path) -> None:
    changed = asyncio.Event()
    tokens = watched_tokens(file, on_change=lambda _: changed.set())
    assert tokens.value.rights(OLD).may_read
    tokens.start()
    write(file, f"{NEW} read\n")
    async with asyncio.timeout(PATIENCE):
        await changed.wait()
    assert tokens.value.rights(NEW).may_read
    assert not tokens.value.rights(OLD).may_read
    await tokens.close()


def test_nothing_is_read_that_did_not_change(file: Path) -> None:
    tokens = watched_tokens(file)
    before = tokens.value
    assert not tokens.look()
    assert tokens.value is before
    assert tokens.look(force=True)
    assert tokens.value is not before


def test_a_replaced_file_of_the_same_size_and_time_is_seen(file: Path) -> None:
    tokens = watched_tokens(file)
    other = file.with_name("other")
    other.write_text(f"{NEW} read\n")
    times = file.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(file)
    assert tokens.look()
    assert tokens.value.rights(NEW).may_read


@pytest.mark.parametrize("content", [b"short read\n", b"\xff\xfe", None])
def test_a_bad_version_keeps_the_old_one_and_says_why(
    file: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = watched_tokens(file)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    assert not tokens.look()
    assert tokens.value.rights(OLD).may_read
    assert str(file) in caplog.text
    assert "will not do" in caplog.text
    caplog.clear()
    assert not tokens.look()
    assert not caplog.text  # once a version, not once a second
    file.write_text(f"{NEW} read\n")
    assert tokens.look()
    assert tokens.value.rights(NEW).may_read


@pytest.mark.parametrize(
    ("content", "words"), [(b"short read\n", "line 1"), (b"\xff\xfe", "UTF-8"), (None, "No such file")]
)
def test_a_bad_first_version_is_an_error_that_names_the_file(file: Path, content: bytes | None, words: str) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=words) as caught:
        watched_tokens(file)
    assert str(file) in str(caught.value)


def test_a_file_that_everybody_can_read_is_remarked_upon(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    watched_tokens(file)
    assert not caplog.text
    file.chmod(0o644)
    tokens = watched_tokens(file)
    assert f"chmod 600 {file}" in caplog.text
    assert tokens.value.rights(OLD).may_read


async def test_a_listener_that_fails_does_not_end_the_watch(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    def fails(value: str) -> None:
        heard.put_nowait(value)
        raise RuntimeError("a listener's mistake")

    watched = Watched([file], file.read_text, fails)
    watched.start()
    with caplog.at_level(logging.ERROR):
        for text in ("one", "two"):
            write(file, text)
            async with asyncio.timeout(PATIENCE):
                assert await heard.get() == text
    assert "a listener's mistake" in caplog.text
    await watched.close()
