"""Usage: scripts/fuzz [rows|dns|http|etcd|consul|journal …] [--seconds 60]

Coverage-guided fuzzing of the registry's parsers with atheris, one process each, one after the other. A parser may raise
the error it promises, and nothing else; what it accepts must go through the other direction. Memory above 1 GiB, or an
input that takes over two seconds, is a failure as well. Findings are kept in a folder fuzz-NAME/.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fairway.registry"]):
    from fairway.registry.catalog import Catalog
    from fairway.registry.changes import Put
    from fairway.registry.consul.durations import parse_duration
    from fairway.registry.consul.registration import read_check_registration, read_registration
    from fairway.registry.errors import InvalidInstance, StoreRefused, WireError
    from fairway.registry.instance import Address, Instance
    from fairway.registry.journal import recover
    from fairway.registry.nameserver import Nameserver
    from fairway.registry.stores.consul_rows import entries
    from fairway.registry.stores.etcd_layout import Layout, document
    from fairway.registry.wire import Free, Register, RowReader, Synced, decode, encode
    from fairway.registry.zone import Zone

HOST = "127.0.0.1"
SEEDS = {
    "rows": [b'["register","A1",{"role":"a@1.2.3","port":9001,"tags":["x"]}]\n',
             b'["hello",{"token":"t"}]\n["free","A1"]\n'],
    "dns": [bytes.fromhex("123401000001000000000001")
            + b"\x01a\x07service\x07fairway\0\0\x21\0\1\0\0\x29\x10\0\0\0\0\0\0\0"],
    "http": [b'{"Name":"a","Port":9001,"Tags":["x"],"Meta":{"k":"v"},"Check":{"TCP":"127.0.0.1:9001","Interval":"5s"}}'],
    "etcd": [b'{"writer":"W","principal":"","role":"a","host":"127.0.0.1","port":9001,"id":"A1"}'],
    "consul": [b'[{"Node":{"Address":"127.0.0.1"},"Service":{"ID":"A1","Service":"a","Port":9001,"Meta":{}},"Checks":[]}]'],
    "journal": [b'fairway journal 1\n0000001b 1f391919 {"gone":"9F2C55D0A1B2C3D4"}\n'],
}  # fmt: skip


def rows() -> Callable[[bytes], None]:
    def one(data: bytes) -> None:
        catalog, reader = Catalog(), RowReader()
        catalog.join("p", HOST, 0.0)
        catalog.receive("p", Synced(), 0.0)
        try:
            for at in range(0, len(data), 97):  # as it may come off a socket
                for message in reader.feed(data[at : at + 97]):
                    assert decode(encode(message)) == message
                    if isinstance(message, Register | Free):
                        catalog.receive("p", message, 1.0)
        except WireError:
            pass
        assert all(len(encode(Register(i.id, i.as_meta()))) <= 8192 for i in catalog.instances())

    return one


def dns() -> Callable[[bytes], None]:
    catalog = Catalog()
    for n in range(20):
        instance = Instance(f"A{n}", "ab"[n % 2], Address(f"10.0.0.{n + 1}", 9000 + n), "1.2.3", tags=("x",))
        catalog.register("p", instance, instance.address.host, 0.0)
    draw = random.Random(1).random
    nameserver = Nameserver(Zone(catalog, draw=draw), draw)

    def one(data: bytes) -> None:
        for stream in (False, True):
            answer = nameserver.answer(data, 0.0, stream=stream)
            assert len(answer) <= (65_535 if stream else 4096)
            assert not answer or answer[:2] == data[:2]

    return one


def http() -> Callable[[bytes], None]:
    def one(data: bytes) -> None:
        try:
            raw = json.loads(data)
        except (ValueError, RecursionError):
            raw = data.decode("utf-8", "replace")
        for read in (
            lambda: read_registration(raw, HOST),
            lambda: read_check_registration(raw),
            lambda: parse_duration(raw),
        ):
            try:
                found = read()
            except InvalidInstance:
                continue
            if isinstance(found, Instance):
                assert Instance.from_meta(found.id, found.as_meta(), HOST) == found

    return one


def etcd() -> Callable[[bytes], None]:
    layout = Layout("fairway")

    def one(data: bytes) -> None:
        for key in ("/fairway/v1/a/A1", "/fairway/marks/A1", data[:40].decode("utf-8", "replace")):
            try:
                found = layout.read(key, data)
            except InvalidInstance:
                continue
            if found is not None and isinstance(put := getattr(found, "put", None), Put):
                try:
                    document(put, "W")
                except StoreRefused:
                    pass

    return one


def consul() -> Callable[[bytes], None]:
    def one(data: bytes) -> None:
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            return
        try:
            entries(body)
        except (InvalidInstance, WireError):
            pass

    return one


def journal() -> Callable[[bytes], None]:
    def one(data: bytes) -> None:
        half = len(data) // 2
        files = {"journal-1": data, "snapshot-1": data[:half], "snapshot-2": data[half:], "journal-2": data[::-1]}
        recover(files, files.__getitem__)

    return one


TARGETS: dict[str, Callable[[], Callable[[bytes], None]]] = {
    "rows": rows, "dns": dns, "http": http, "etcd": etcd, "consul": consul, "journal": journal
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(usage=(__doc__ or "").partition("\n")[0].removeprefix("Usage: "))
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []])
    parser.add_argument("--seconds", type=int, default=60)
    given = parser.parse_args()
    failed = 0
    for name in given.targets or TARGETS:
        folder = Path(f"fuzz-{name}")
        (folder / "corpus").mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(SEEDS[name]):
            (folder / "corpus" / f"seed-{number}").write_bytes(seed)
        print(f"{name}: {given.seconds} s", file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, __file__, "--run", name, f"-max_total_time={given.seconds}", "-timeout=2",
             "-rss_limit_mb=1024", "-max_len=16384", f"-artifact_prefix={folder}/", str(folder / "corpus")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        runs = re.findall(r"Done (\d+) runs", done.stdout)
        coverage = re.findall(r"cov: (\d+)", done.stdout)
        memory = re.findall(r"rss: (\d+)Mb", done.stdout)
        if done.returncode or not runs:
            failed += 1
            print(done.stdout[-4000:], file=sys.stderr)
            continue
        print(f"{name:8} {runs[-1]:>10} inputs, {coverage[-1]} edges, {memory[-1]} MB", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        atheris.Setup([sys.argv[0], *sys.argv[3:]], TARGETS[sys.argv[2]]())
        atheris.Fuzz()
        os._exit(0)
    sys.exit(main())
