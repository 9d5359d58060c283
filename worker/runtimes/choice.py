"""Which engine runs a model: the fastest of those that are installed, can run it, and answer as its own engine does.

Candidates are tried in processes of their own, on pictures from a seed; what was found out is kept, see record.py.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..config import WorkerSettings
from ..errors import ConfigurationError
from ..source import Source
from . import Opened, Options, installed, known, open_source, predecessor, probes, reads, record
from .apart import asked

log = logging.getLogger("fairway.worker")

# OpenVINO computes these in 32 bits: probes would not show it, larger numbers would.
NARROWED = ("int64", "uint64", "uint32", "float64")
# Settings that say what a model is; nothing else of a worker's settings concerns a trial.
CONCERNED = ("model", "weights", "labels", "precision", "input_layer", "output_layer")


@dataclass(frozen=True)
class Candidate:
    """`converted`: it takes the model in another form, which the reference makes."""

    name: str  # openvino-bf16
    runtime: str  # openvino
    converted: bool
    bf16: bool = False

    @property
    def target(self) -> str:
        """What conversion calls it."""
        return self.name.removesuffix("-bf16")

    @property
    def coarse(self) -> bool:
        """Less than float32."""
        return self.name != self.runtime


def open_best(path: str, source: Source, settings: WorkerSettings, threads: int) -> tuple[Opened, dict[str, Any]]:
    """The opened model, and how its engine was chosen: fit for JSON. `path`: what `source` was found by.

    Raises ConfigurationError.
    """
    options = Options.of(settings, threads)
    reference, candidates = _candidates(source, settings)
    weights = not options.weights or Path(options.weights).is_file()
    if not candidates or not weights:
        return _only(reference, source, options, "nothing else was to be tried")
    folder = _writable(record.folder_for(source, settings.choices), record.content_hash(source, options))
    names = [candidate.name for candidate in candidates]
    file = folder / f"choice-{record.machine_key(options, settings.precision, [settings.runtime, *names])}.json"
    found = _open_recorded(file, folder, source, options)
    if found is None:
        with record.locked(folder, f"choosing an engine for {source.name}"):
            found = _open_recorded(file, folder, source, options)  # another process may have been quicker
            if found is None:
                try:
                    choosing = partial(_Choosing, path, source, settings, threads, reference, folder)
                    auto = settings.runtime == "auto"
                    earlier = predecessor.found(folder, file.name, source, options) if auto else None
                    entry = _entry(choosing, reference, candidates, earlier)
                except ConfigurationError as error:
                    others = [name for name in reads(source.kind)[1:] if installed(name) and name != reference]
                    if settings.runtime != "auto" or not others:
                        raise
                    try:
                        return _only(others[0], source, options, str(error))
                    except ConfigurationError:
                        raise error from None  # what its own engine says is more to the point
                if entry["report"]["tried"][entry["report"]["chosen"]].get("rates"):
                    # else nothing was found out; perhaps another time
                    record.write(file, entry | {"source": record.of_source(source, options)})
                    with contextlib.suppress(OSError):
                        record.tidy(folder, time.time())
                found = record.open_choice(entry, folder, source, options), {**entry["report"], "cached": False}
    return found


def _entry(
    choosing: Callable[[list[Candidate]], _Choosing],
    reference: str,
    candidates: list[Candidate],
    earlier: dict[str, Any] | None,
) -> dict[str, Any]:
    """What is to be recorded. Of a further version the engine of the one before (`earlier`) is tried first, and alone."""
    if earlier is not None:
        chosen = earlier["report"]["chosen"]
        few = [candidate for candidate in candidates if candidate.name == chosen]
        if few or chosen == reference:
            log.info("the version before ran on %s, which is tried first", chosen)
            entry = choosing(few).entry()
            if predecessor.holds(entry, earlier):
                entry["report"]["because"] = "the version before ran on it, and it answers the same"
                return entry
    return choosing(candidates).entry()


def _only(name: str, source: Source, options: Options, because: str) -> tuple[Opened, dict[str, Any]]:
    opened = open_source(name, source, options)
    return opened, {"chosen": opened.runtime, "because": because}


def _candidates(source: Source, settings: WorkerSettings) -> tuple[str, list[Candidate]]:
    """The engine that defines the answers, and what may take its place. Forced to one engine, that is the only candidate.

    No candidates: the first is what serves.
    """
    wanted, readers = settings.runtime, reads(source.kind)
    if wanted != "auto":
        known(wanted)
    available = [name for name in readers if installed(name)] or readers[:1]
    reference = available[0]
    convertible = reference == "tensorflow"
    found = []
    for name in ("litert", "onnx", "openvino"):
        direct = name in readers and name != reference and not convertible
        if not direct and (not convertible or not installed(name) or (name == "onnx" and not _finds("tf2onnx"))):
            continue
        if name in available or convertible:
            found.append(Candidate(name, name, convertible))
    if settings.precision != "exact" and installed("openvino") and (convertible or "openvino" in readers):
        found.append(Candidate("openvino-bf16", "openvino", convertible, bf16=True))
    if settings.precision == "int8-ok" and convertible and installed("litert"):
        found.append(Candidate("litert-int8", "litert", True))
    if wanted == "auto":
        return reference, found
    if wanted == reference or not convertible:
        return wanted, []
    fitting = [candidate for candidate in found if candidate.runtime == wanted]
    if not fitting:
        missing = "tf2onnx" if wanted == "onnx" and installed(wanted) else wanted
        raise ConfigurationError(
            f"{source}: the {wanted} runtime cannot be given it ({missing} is not installed, or cannot run it): "
            f"pip install 'fairway[{missing}]', or take another --runtime"
        )
    return reference, fitting


def _open_recorded(file: Path, folder: Path, source: Source, options: Options) -> tuple[Opened, dict[str, Any]] | None:
    entry = record.read(file)
    if entry is None:
        return None
    try:
        opened = record.open_choice(entry, folder, source, options)
        record.used(file)
        return opened, {**entry["report"], "cached": True}
    except Exception as error:  # a file was taken away, or an engine has changed: found out anew
        log.warning("what was found out about %s is of no use any more: %s", source.name, str(error)[:200])
        return None


class _Choosing:
    """One search for the fastest."""

    def __init__(
        self,
        path: str,
        source: Source,
        settings: WorkerSettings,
        threads: int,
        reference: str,
        folder: Path,
        candidates: list[Candidate],
    ) -> None:
        self._source, self._reference, self._candidates, self._folder = source, reference, candidates, folder
        self._forced = settings.runtime != "auto"
        self._precision = settings.precision
        said = {
            name: value for name, value in asdict(settings).items() if name in CONCERNED or name.startswith("input_")
        }
        self._asked = {"settings": said, "path": path, "threads": threads}
        self._tried: dict[str, dict[str, Any]] = {}

    def entry(self) -> dict[str, Any]:
        """What is to be recorded. Raises ConfigurationError if the model cannot be loaded at all."""
        log.info("choosing an engine for %s: %s first, which defines its answers", self._source.name, self._reference)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="trial-", ignore_cleanup_errors=True) as work:
            description, files, trouble = self._refer(work)
            entries = {self._reference: self._entry(description, self._reference, None, False)}
            for candidate in self._candidates:
                if trouble or (candidate.converted and candidate.target not in files):
                    continue
                if candidate.runtime == "openvino" and not self._forced and (long := _long(description)):
                    self._pass_over(candidate.name, f"it would compute {long} in 32 bits")
                    continue
                entry = self._entry(description, candidate.runtime, files.get(candidate.target, {}), candidate.bf16)
                entry["variant"] = "-int8" if candidate.name == "litert-int8" else ""
                self._try(candidate, entry, work)
                entries[candidate.name] = entry
            chosen = self._chosen(trouble)
            entry = entries[chosen]
            for name in set((entry["files"] or {}).values()):
                for piece in Path(work).glob(f"{Path(name).stem}.*"):  # weights may lie in a file of their own
                    piece.replace(self._folder / piece.name)
        entry["chunk"] = probes.chunk_for(self._rates(chosen))
        entry["report"] = {
            "chosen": chosen,
            "reference": self._reference,
            "because": trouble or ("it was asked for" if self._forced else "the fastest that answers the same"),
            "precision": self._precision,
            "tolerance": probes.COARSE if self._coarse(chosen) else probes.EXACT,
            "tried": self._tried,
        }
        log.info("%s runs on %s: %s; %s", self._source.name, chosen, entry["report"]["because"], self._summary(chosen))
        return entry

    def _refer(self, work: str) -> tuple[dict[str, Any], dict[str, dict[str, str]], str]:
        """The model's description, the converted files by target, and why nothing can be compared, if that is so."""
        targets = list(dict.fromkeys(candidate.target for candidate in self._candidates if candidate.converted))
        description: dict[str, Any] = {}
        files: dict[str, dict[str, str]] = {}
        trouble, probe, doing = "", True, ""
        while True:
            error = ""
            for line in self._ask({"do": "reference", "runtime": self._reference, "folder": work, "probe": probe,
                                   "convert": targets}):  # fmt: skip
                description = line.get("opened", description)
                if "rates" in line:
                    probe = False
                    self._note(self._reference, **line)
                if "converting" in line:
                    doing = line["converting"]
                    targets.remove(doing)
                if "converted" in line:
                    files[line["converted"]], doing = line["files"], ""
                if "failed" in line:
                    self._pass_over(line["failed"], f"cannot be converted: {line['error']}")
                    doing = ""
                error = line.get("error", "") if "failed" not in line else error
            if not description:
                raise ConfigurationError(error or f"{self._source}: {self._reference} ended without a word")
            if doing:  # the converter took the process with it; the others are tried all the same
                self._pass_over(doing, f"cannot be converted: {error}")
                doing = ""
            elif error and probe:
                trouble = f"it cannot be compared: {error}"
                self._tried.setdefault(self._reference, {"reason": trouble})
                break
            elif error:  # between two conversions: to go on would end there again
                for target in targets:
                    self._pass_over(target, f"cannot be converted: {error}")
                break
            if not targets:
                break
        return description, files, trouble

    def _try(self, candidate: Candidate, entry: dict[str, Any], work: str) -> None:
        request = {
            "do": "candidate",
            "entry": entry,
            "folder": work,
            "coarse": candidate.coarse,
            "anyway": self._forced,
        }
        found: dict[str, Any] = {}
        for line in self._ask(request):
            found |= line
        entry["signatures"] = found.pop("signatures", entry["signatures"])
        if (
            reason := found.get("error")
            or found.get("reason")
            or ("" if "rates" in found else "it ended without a word")
        ):
            found.pop("reason", None)
            self._pass_over(candidate.name, reason, **found)
        else:
            self._note(candidate.name, **found)

    def _chosen(self, trouble: str) -> str:
        ran = [name for name in self._tried if self._rates(name)]
        if self._forced:
            ran = [candidate.name for candidate in self._candidates if candidate.name in ran]
            if not ran:
                reasons = [tried["reason"] for tried in self._tried.values() if tried["reason"]]
                raise ConfigurationError(
                    f"{self._source}: {self._candidates[0].runtime}: {trouble or '; '.join(reasons)}"
                )
        fit = [name for name in ran if not self._tried[name]["reason"]]
        for name in ran if self._forced and not fit else ():
            log.warning("%s does not answer as %s does: %s", name, self._reference, self._tried[name]["reason"])
        speeds = {name: probes.speed(self._rates(name)) for name in fit or ran}
        near = [name for name, speed in speeds.items() if speed >= probes.NEAR * max(speeds.values())]
        return min(near, key=lambda name: self._tried[name].get("megabytes", 0.0), default=self._reference)

    def _note(self, name: str, **found: Any) -> None:
        rates = {size: round(rate, 1) for size, rate in found["rates"].items()}  # JSON's names are texts
        self._tried[name] = {
            "rates": rates,
            "difference": found.get("difference", 0.0),
            "megabytes": round(found.get("megabytes", 0.0)),
            "reason": "",
        }
        log.info("trying %s ... %s", name, self._summary(name))

    def _pass_over(self, name: str, reason: str, **found: Any) -> None:
        rates = {size: round(rate, 1) for size, rate in found.get("rates", {}).items()}
        self._tried[name] = {"reason": reason, **({"rates": rates} if rates else {})}
        self._tried[name] |= {key: found[key] for key in ("difference",) if key in found}
        log.info("trying %s ... passed over: %s", name, reason)

    def _summary(self, name: str) -> str:
        rates = self._rates(name)
        size = max(rates, key=lambda size: rates[size], default=0)
        difference = self._tried.get(name, {}).get("difference", 0.0)
        return f"{rates.get(size, 0.0):,.0f} items/s in batches of {size}, largest difference {difference:.1g}"

    def _rates(self, name: str) -> dict[int, float]:
        return {int(size): rate for size, rate in self._tried.get(name, {}).get("rates", {}).items()}

    def _coarse(self, name: str) -> bool:
        return any(candidate.coarse for candidate in self._candidates if candidate.name == name)

    def _entry(
        self, description: Mapping[str, Any], runtime: str, files: dict[str, str] | None, bf16: bool
    ) -> dict[str, Any]:
        return {
            "format": record.FORMAT, **description, "runtime": runtime, "files": files, "bf16": bf16, "variant": "",
        }  # fmt: skip

    def _ask(self, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """A trial's lines; its last one is an error if it did not end well."""
        yield from asked({**self._asked, **request})


def _long(description: Mapping[str, Any]) -> str:
    """The first tensor that is wider than what OpenVINO computes with."""
    tensors = [spec for raw in description["signatures"] for spec in (*raw["inputs"], *raw["outputs"])]
    return next((f"{spec['name']}, of {spec['dtype']}," for spec in tensors if spec["dtype"] in NARROWED), "")


def _writable(wanted: Path, content: str) -> Path:
    """`wanted`, or if nothing can be written there the user's cache, or a folder for as long as this process lives."""
    for parent in (wanted, record.user_cache()):
        folder = parent / content
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError as error:
            log.debug("%s: %s", folder, error)
    folder = Path(tempfile.mkdtemp(prefix="fairway-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _finds(library: str) -> bool:
    from importlib.util import find_spec

    return find_spec(library) is not None
