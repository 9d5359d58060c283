"""The laws of docs/house.md that a reader of imports and folders can check."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT

FOLDERS = ("registry", "worker", "client", "proxy")

# Files whose head or place says sans-io: bytes and `now` in, values out.
HEART = (
    "registry/advertising.py", "registry/audience.py", "registry/board.py", "registry/buckets.py",
    "registry/catalog.py", "registry/changes.py", "registry/check.py", "registry/deadlines.py", "registry/dns.py",
    "registry/health.py", "registry/hearing.py", "registry/hearsay.py", "registry/index.py", "registry/instance.py",
    "registry/journal.py", "registry/lease.py", "registry/lookup.py", "registry/nameserver.py", "registry/owners.py",
    "registry/prometheus.py", "registry/replica.py", "registry/rights.py", "registry/row.py", "registry/txt.py",
    "registry/watcher.py", "registry/wire.py", "registry/zone.py", "registry/consul/__init__.py",
    "registry/consul/definitions.py", "registry/consul/durations.py", "registry/consul/entries.py",
    "registry/consul/registration.py", "registry/stores/consul_rows.py", "registry/stores/document.py",
    "registry/stores/etcd_layout.py", "registry/stores/mdns_rows.py", "registry/stores/mdns_words.py",
    "registry/stores/outbox.py", "registry/stores/zookeeper_layout.py",
    "worker/training/head.py",
    "worker/batcher.py", "worker/dataset/idx.py", "worker/lane.py", "worker/metrics.py", "worker/tuning.py",
    "worker/tensor.py", "worker/tfrecord.py", "worker/versions.py", "worker/wire/answer.py", "worker/wire/datatypes.py",
    "worker/wire/openinference.py", "worker/wire/multipart.py",
    "worker/wire/elements.py", "worker/wire/examples.py", "worker/wire/npy.py", "worker/wire/numbers.py",
    "worker/wire/tfserving.py", "worker/wire/tfserving_models.py",
    "worker/wire/protobuf.py", "worker/wire/tensorflow_messages.py", "worker/wire/serving_messages.py",
    "worker/wire/inference_messages.py", "worker/wire/openinference_grpc.py", "worker/wire/predict.py",
    "worker/wire/tensor_proto.py", "client/addresses.py",
    "client/bench/arrivals.py", "client/bench/demand.py", "client/bench/stability.py", "client/bench/tally.py",
    "client/balancing/__init__.py", "client/balancing/hashed.py", "client/balancing/least_loaded.py",
    "client/balancing/peak_ewma.py", "client/balancing/round_robin.py", "client/candidates.py", "client/pool.py",
    "client/retry.py", "client/upstream.py", "proxy/chunks.py", "proxy/head.py", "proxy/metrics.py",
    "proxy/reply.py", "proxy/route.py",
    "proxy/server_timing.py", "proxy/standing.py", "proxy/trace_context.py", "proxy/workers_page.py", "worker/wire/load.py",
    "worker/wire/content_encoding.py", "worker/wire/timing.py", "worker/runtimes/difference.py",
    "worker/export/forms.py",
)  # fmt: skip
WORLD = {
    "random",
    "asyncio",
    "socket",
    "time",
    "aiohttp",
    "selectors",
    "threading",
    "subprocess",
    "os",
    "uvloop",
    "datetime",
}
JUNK_DRAWERS = {"utils", "util", "common", "helpers", "helper", "misc", "types", "constants"}
MOST_LINES = 450


def tracked(suffix: str = "") -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.splitlines() if name.endswith(suffix)]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def imports(path: Path) -> set[str]:
    """Top-level names of absolute imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found


def relative_imports(path: Path) -> set[str]:
    """Files of the house that `path` imports, as paths from the root."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1]
            modules = [node.module] if node.module else [alias.name for alias in node.names]
            for module in modules:
                place = folder / module.replace(".", "/")
                file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
                found.add(str(file.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("name", HEART)
def test_the_heart_does_not_touch_the_world(name: str) -> None:
    # A random source is handed to those who choose; only its type is imported.
    chooses = name.startswith("client/balancing/") or name == "client/candidates.py"
    assert not imports(ROOT / name) & (WORLD - ({"random"} if chooses else set()))


@pytest.mark.parametrize("name", HEART)
def test_the_heart_rests_on_nothing_but_itself(name: str) -> None:
    nouns = {"errors.py", "config.py"}
    assert not [path for path in relative_imports(ROOT / name) if path not in HEART and Path(path).name not in nouns]


def test_who_calls_itself_sans_io_is_checked() -> None:
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            head = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").lower()
            if path.name != "__init__.py" and ("sans-io" in head or "no socket" in head):
                assert str(path.relative_to(ROOT)) in HEART, path


def test_every_codec_belongs_to_the_heart() -> None:
    codecs = {str(path.relative_to(ROOT)) for path in (ROOT / "worker/wire").glob("*.py")} - {"worker/wire/__init__.py"}
    assert codecs <= set(HEART)


def test_a_file_is_one_noun() -> None:
    long = {str(p.relative_to(ROOT)): n for p in tracked(".py") if (n := len(p.read_text().splitlines())) > MOST_LINES}
    assert not long


def test_there_is_no_junk_drawer() -> None:
    assert not [p for p in tracked() if p.stem in JUNK_DRAWERS or set(p.relative_to(ROOT).parts[:-1]) & JUNK_DRAWERS]


@pytest.mark.parametrize("folder", FOLDERS)
def test_who_knows_one_folder_knows_four(folder: str) -> None:
    for face in ("__init__.py", "errors.py", "config.py", "__main__.py"):
        assert (ROOT / folder / face).is_file()
    assert ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text("utf-8")))


def test_a_checkout_named_as_the_package_is_not_taken_for_it() -> None:
    assert not (ROOT / "__init__.py").exists()
    assert not (ROOT / "src/fairway/__init__.py").is_symlink()


def test_what_a_client_may_not_take_of_a_worker_is_all_but_its_wire() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    names = {path.stem for path in (ROOT / "worker").glob("*.py")} - {"__init__", "errors", "tensor"}  # its nouns
    names |= {path.parent.name for path in (ROOT / "worker").glob("*/__init__.py")} - {"wire", "accuracy", "dataset"}
    assert not [name for name in names if f'"fairway.worker.{name}"' not in text]


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_inside_the_house_are_relative(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        assert "fairway" not in imports(path), path


def test_every_public_name_says_what_it_is() -> None:
    silent = []
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(path.read_text("utf-8"))
            if path.name != "__init__.py" and not ast.get_docstring(tree):
                silent.append(str(path.relative_to(ROOT)))
    assert not silent


def test_scripts_begin_with_their_usage() -> None:
    for path in (ROOT / "scripts").iterdir():
        if path.is_file() and path.suffix != ".py":
            assert path.read_text("utf-8").splitlines()[1].startswith("# Usage: "), path


def test_what_is_bundled_stays_small() -> None:
    assert sum(path.stat().st_size for path in (ROOT / "worker/models").rglob("*") if path.is_file()) <= 3_000_000


def test_nothing_large_is_tracked() -> None:
    assert not [path for path in tracked() if path.stat().st_size > 3_200_000]
