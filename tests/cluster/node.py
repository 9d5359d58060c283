"""A Node process with the real seaport of npm, version 2.0.9, driven line by line."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

SEAPORT = "seaport@2.0.9"
PATIENCE = 15.0  # seconds

# Each line on stdin is evaluated with `s`, our seaport client, in reach, and answered; events are told as they come.
DRIVER = """
const seaport = require('seaport'), semver = require('semver');
const tell = (...row) => process.stdout.write(JSON.stringify(row) + '\\n');
const follow = s => {
    s.on('register', meta => tell('register', meta));
    s.on('free', meta => tell('free', meta));
    s.on('synced', () => tell('synced'));
    s.on('disconnect', () => tell('disconnect'));
    return s;
};
const open = (...args) => follow(seaport.connect(...args));
const serve = (...args) => follow(seaport.createServer(...args));
const net = require('net');
let s, hub;
require('readline').createInterface({ input: process.stdin }).on('line', line => tell('answer', eval(line) ?? null));
"""


def installed(folder: Path) -> Path:
    """A folder with seaport installed in it; its scripts are not run, it needs none."""
    if missing := [name for name in ("node", "npm") if shutil.which(name) is None]:
        pytest.skip(f"not installed: {' and '.join(missing)}")
    (folder / "driver.js").write_text(DRIVER)
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1", "--prefix", "."]
    try:
        done = subprocess.run([*command, SEAPORT], cwd=folder, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm could not install {SEAPORT} within a minute")
    if done.returncode:
        pytest.skip(f"npm could not install {SEAPORT}: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}")
    return folder


class Node:
    """A Node process with a seaport client in it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._rows: list[list[Any]] = []

    async def until(self, kind: str, **expected: object) -> Any:
        """The first event of this kind, not asked for before, whose values are the expected ones."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for at, (name, *rest) in enumerate(self._rows):
                    if name == kind and (not expected or expected.items() <= rest[0].items()):
                        del self._rows[at]
                        return rest[0] if rest else None
                assert self.process.stdout is not None
                line = await self.process.stdout.readline()
                assert line, "node ended before that"
                self._rows.append(json.loads(line))

    async def run(self, script: str) -> Any:
        """Evaluates one line of JavaScript -> its value. Events that came before the answer are kept."""
        assert self.process.stdin is not None
        assert "\n" not in script
        self.process.stdin.write(script.encode() + b"\n")
        kept = self._rows
        self._rows = []
        async with asyncio.timeout(PATIENCE):
            while not (self._rows and self._rows[-1][0] == "answer"):
                assert self.process.stdout is not None
                line = await self.process.stdout.readline()
                assert line, "node ended before that"
                self._rows.append(json.loads(line))
        answer = self._rows.pop()[1]
        self._rows = kept + self._rows
        return answer

    @property
    def heard(self) -> list[list[Any]]:
        """Events that nobody asked for yet."""
        return list(self._rows)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()  # SIGKILL: it says no goodbye
        await self.process.communicate()


@asynccontextmanager
async def node(folder: Path) -> AsyncIterator[Node]:
    process = await asyncio.create_subprocess_exec(
        "node", "driver.js", cwd=folder, stdin=PIPE, stdout=PIPE, env={"PATH": os.environ["PATH"]}
    )
    one = Node(process)
    try:
        yield one
    finally:
        await one.kill()
