"""The models that are served: which versions there are, which are loaded, and which one a request means.

Folders are looked at in a thread, what is to be done is decided by `versions.py`, and done by `rollout.py`, one load at
a time. All else happens on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BadRequest, ConfigurationError, ModelError, NotFound, NotReady, WorkerError
from .held import Held, metrics, unknown
from .listing import Folder
from .model_config import ConfigFile, Directory, Fixed, ModelConfig, ModelEntry, Wishes
from .rollout import Load, Rollout
from .source import find_source
from .versions import Policy, Versions, VersionStatus, parse_labels

if TYPE_CHECKING:
    from .config import WorkerSettings
    from .engine import Engine
    from .model import Model

log = logging.getLogger("fairway.worker")

SETTLE_SECONDS = 1.0  # how long a listing must stand still where nothing is polled


class Repository:
    """`await Repository.open(...)`, then `run()` until it is cancelled, at last `close()`. Made directly it serves `models`
    as they are, and knows no others.

    `on_change`: called when a version begins or ceases to be served. `trouble`: what is wrong with the folders or the
    configuration now, for people; empty if nothing is.
    """

    def __init__(
        self,
        models: Sequence[Model] = (),
        *,
        wishes: Wishes | None = None,
        rollout: Rollout | None = None,
        poll_seconds: float = 0.0,
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.trouble = ""
        self._wishes, self._rollout = wishes or Fixed(ModelConfig()), rollout
        self._poll, self._settle = poll_seconds, poll_seconds or SETTLE_SECONDS
        self._held: dict[str, Held] = {}
        self._first = True
        self._looking, self._wake, self._quiet = asyncio.Lock(), asyncio.Event(), asyncio.Event()
        self._quiet.set()
        self._eyes = ThreadPoolExecutor(1, thread_name_prefix="look")
        self._loading: asyncio.Task[None] | None = None
        for model in models:
            entry = ModelEntry(model.name, model.name, Policy("all"))
            held = self._held.setdefault(
                model.name, Held(entry, None, Versions(model.name, entry.policy), counted=True)
            )
            held.models[model.version] = model
            held.versions.aspire(list(held.models))
            held.versions.begun(model.version)
            held.versions.loaded(model.version)

    @classmethod
    async def open(cls, settings: WorkerSettings, engine: Engine, load: Load | None = None) -> Repository:
        """Returns when all that is there is served or has failed. Raises ConfigurationError for settings that lead nowhere:
        --model with no version that loads, a configuration that cannot be read.
        """
        if load is None:
            from .loading import load_model  # its libraries are needed by nobody else here

            load = load_model
        settle = settings.poll_seconds or SETTLE_SECONDS
        wishes = _wishes(settings, settle)
        repository = cls(wishes=wishes, rollout=Rollout(settings, engine, load), poll_seconds=settings.poll_seconds)
        try:
            await repository._begin()
        except BaseException:
            await repository.close()
            raise
        return repository

    # -- what requests ask --------------------------------------------------------------------------------------

    def find(self, name: str = "", version: int | None = None, label: str = "") -> Model:
        """The version of `name` that is meant: of none said, the highest that is served. No name: the first model.

        Raises NotFound and BadRequest with TensorFlow Serving's texts, NotReady for what is being loaded.
        """
        held = self._held.get(name) if name else next(iter(self._held.values()), None)
        if held is not None:
            return held.find(version, label)
        if not name:
            raise NotReady("no model is served yet")
        raise unknown(name, version)

    def names(self) -> list[str]:
        """Of all models of which there are versions, served or not; the default one first."""
        return [name for name, held in self._held.items() if held.versions.statuses()]

    def served(self) -> tuple[str, ...]:
        """`name/version` of all that is served: what others are told."""
        return tuple(f"{name}/{number}" for name, held in self._held.items() for number in sorted(held.models))

    def labels(self, name: str) -> dict[str, int]:
        """Which served version each label of the model means. Raises NotFound."""
        return dict(self._known(name).versions.labels)

    def statuses(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """Highest version first. Raises NotFound with TensorFlow Serving's texts."""
        found = self._held[name].versions.statuses() if name in self._held else []
        if not found:
            raise NotFound(f"Could not find any versions of model {name}")
        if version is not None:
            found = [status for status in found if status.version == version]
            if not found:
                raise NotFound(f"Could not find version {version} of model {name}")
        return found

    @property
    def ready(self) -> bool:
        """At least one model, and every one that is wanted is served. What joined later counts from when it was served."""
        held = self._held.values()
        wanted = [one for one in held if one.counted and not one.versions.withdrawn]
        return any(one.models for one in held) and all(one.models for one in wanted)

    def metrics(self) -> str:
        """In Prometheus's text format."""
        return metrics(self._held.values(), bool(self.trouble))

    # -- what operators ask -------------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Looks at the folders and the configuration now, and tries again what has failed. Returns when it is done."""
        for held in self._held.values():
            held.versions.retry()
        await self._look()
        for _ in range(2):  # once for the configuration, and once for what it leads to; but not for an endless copy
            if self._unsettled():
                await asyncio.sleep(self._settle)
                await self._look()
        await self.idle()

    async def load(self, name: str) -> None:
        """Back into service, or once more. Raises NotFound, and ModelError if no version of it can be served."""
        if name in self._held:
            self._held[name].versions.restore()
        await self.reload()
        held = self._known(name)
        if not held.models:
            raise ModelError(f"failed to load {name}: {held.why}")

    async def unload(self, name: str) -> None:
        """Out of service until `load`. Returns when its last request is answered. Raises NotFound."""
        held = self._known(name)
        held.versions.withdraw()
        self._step()
        await asyncio.gather(*held.leaving)

    async def apply(self, config: ModelConfig) -> None:
        """Replaces the whole set. Returns when what is new is served; raises ModelError if it cannot be, and BadRequest
        if a label should name a version that is not served. Then the new set is wanted all the same.
        """
        before = set(self._held)
        self._wishes = Fixed(config)
        await self.reload()
        new = [self._held[entry.name] for entry in config.entries if entry.name in self._held]
        failed = [held for held in new if held.name not in before and not held.models]
        if failed:
            texts = "; ".join(f"{held.name}: {held.why}" for held in failed)
            raise ModelError(f"{len(failed)} servable(s) did not become available: {texts}")
        for held in new:
            for label, version in held.entry.labels.items():
                if held.versions.labels.get(label) != version:
                    raise BadRequest(
                        f"Request to assign label to version {version} of model {held.name}, which is not "
                        "currently available for inference"
                    )

    # -- a life -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Looks every `poll_seconds`; sooner where something is due."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._look()
            except Exception:  # whatever it was, the next look may be luckier, and what is served is
                log.exception("looking for models failed")

    async def idle(self) -> None:
        """Until no load is under way, or due."""
        await self._quiet.wait()

    async def close(self) -> None:
        """Unloads all, once their requests are answered."""
        self._eyes.shutdown(wait=False, cancel_futures=True)
        if self._rollout is None:
            return
        if self._loading:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        for held in self._held.values():
            held.versions.withdraw()
        self._step()
        await asyncio.gather(*(task for held in self._held.values() for task in held.leaving))

    async def _begin(self) -> None:
        await self._look(act=False)
        waited = False
        # What is still being copied may be the best of all: it gets a moment, and longer if there is nothing else.
        while self._unsettled() and not (waited and self._loadable()):
            waited = True
            await asyncio.sleep(self._settle)
            await self._look(act=False)
        self._step()
        await self.idle()
        self._first = False
        for held in self._held.values():
            held.counted = True
        if isinstance(self._wishes, Fixed) and not self.ready:
            texts = [held.why for held in self._held.values() if not held.models]
            raise ConfigurationError("; ".join(texts) or self.trouble)

    def _loadable(self) -> bool:
        return any(held.versions.wanted for held in self._held.values()) or not isinstance(self._wishes, Fixed)

    def _pause(self) -> float | None:
        """Seconds until the next look; None: only when somebody asks."""
        now = time.monotonic()
        waits = [self._poll] if self._poll else [self._settle] if self._unsettled() else []
        waits += [max(0.0, due - now) for held in self._held.values() if (due := held.versions.due()) and due > now]
        return min(waits, default=None)

    def _unsettled(self) -> bool:
        folders = (held.folder for held in self._held.values())
        return self._wishes.unsettled or any(folder is not None and folder.unsettled for folder in folders)

    # -- looking ------------------------------------------------------------------------------------------------

    async def _look(self, act: bool = True) -> None:
        async with self._looking:
            wishes = self._wishes
            loop = asyncio.get_running_loop()
            known = {name: (held.folder, [*held.tried]) for name, held in self._held.items() if held.folder is not None}
            try:
                config, folders = await loop.run_in_executor(self._eyes, self._see, wishes, known)
            except ConfigurationError as error:
                if self._first:
                    raise
                self._complain(str(error))
                return
            if wishes is self._wishes:
                self._take(config, folders)
                if act:
                    self._step()

    def _see(self, wishes: Wishes, known: dict[str, tuple[Folder, list[int]]]) -> tuple[ModelConfig, dict[str, Folder]]:
        """In the thread for looking: a slow disk holds up nobody else. `known`: folders, and the versions to watch."""
        assert self._rollout is not None
        now, wall, folders = time.monotonic(), time.time(), {}
        config = wishes.read(now)
        for entry in config.entries:
            folder, watched = known.get(entry.name, (None, ()))
            if folder is None or folder.path != entry.path:
                folder = Folder(entry.path, self._rollout.settings, self._settle, self._first)
            folder.look(now, wall, watched)
            folders[entry.name] = folder
        return config, folders

    def _take(self, config: ModelConfig, folders: dict[str, Folder]) -> None:
        for entry in config.entries:
            held = self._held.get(entry.name)
            if held is None:
                held = self._held[entry.name] = Held(entry, None, Versions(entry.name))
            if held.dropped:
                held.dropped = False
                held.versions.restore()
            folder = folders[entry.name]
            held.entry, held.folder = entry, folder
            held.versions.configure(entry.policy, entry.labels)
            if folder.versions or not folder.trouble:
                held.versions.aspire(folder.versions)
            for number, found in folder.versions.items():
                if found.ready and held.tried.get(number, found.listing) != found.listing:
                    held.tried[number] = found.listing
                    held.versions.changed(number)
        wanted = {entry.name for entry in config.entries}
        for name, held in self._held.items():
            if name not in wanted and not held.dropped:
                held.dropped = True
                held.versions.withdraw()
        # In the order that was asked for; who leaves is nobody's default.
        self._held = {entry.name: self._held[entry.name] for entry in config.entries} | self._held
        self._complain("; ".join(folder.trouble for folder in folders.values() if folder.trouble))

    def _complain(self, text: str) -> None:
        if text and text != self.trouble:
            log.warning("%s", text)
        self.trouble = text

    # -- doing --------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        """Whatever can be done now is begun."""
        for held in self._held.values():
            while (number := held.versions.next_unload()) is not None:
                self._retire(held, number)
        for name, held in [*self._held.items()]:
            if held.dropped and not held.models and not held.leaving and not held.versions.loading:
                del self._held[name]
        if self._loading is None:
            # Models that are not served at all come first.
            for held in sorted(self._held.values(), key=lambda held: bool(held.models)):
                number = held.versions.next_load(time.monotonic())
                if number is not None and held.folder is not None and held.folder.ready(number):
                    self._loading = asyncio.create_task(self._load(held, number))
                    break
        if self._loading is None and not any(held.versions.returning for held in self._held.values()):
            self._quiet.set()
        else:
            self._quiet.clear()

    async def _load(self, held: Held, number: int) -> None:
        assert self._rollout is not None
        assert held.folder is not None
        found = held.folder.versions[number]
        name = f"{held.name}/{number}"
        held.versions.begun(number)
        held.tried[number] = found.listing
        started = time.monotonic()
        log.info("loading %s from %s", name, found.path)
        try:
            model = await self._rollout.load(held.entry, number, found.path)
        except Exception as error:
            known = isinstance(error, WorkerError | ConfigurationError)
            text = " ".join(str(error).split()) if known else f"{type(error).__name__}: {error}"
            stays = ", ".join(map(str, sorted(held.models)))
            log.warning("%s failed: %s%s", name, text, f"; {stays} stays" if stays else "", exc_info=not known)
            held.failed += 1
            held.versions.failed(number, text, time.monotonic(), "INVALID_ARGUMENT" if known else "UNKNOWN")
        else:
            before = held.models.get(number)
            held.models[number] = model
            held.versions.loaded(number)
            held.counted, held.loaded = True, held.loaded + 1
            log.info("%s is served after %.1f s", name, time.monotonic() - started)
            if before is not None:
                self._leave(held, before, None)
            self.on_change()
        finally:
            self._loading = None
        self._step()

    def _retire(self, held: Held, number: int) -> None:
        held.versions.retired(number)
        self._leave(held, held.models.pop(number), number)
        self.on_change()

    def _leave(self, held: Held, model: Model, number: int | None) -> None:
        """`number`: None where other contents of the same version took its place."""
        task = asyncio.create_task(self._unload(held, model, number))
        held.leaving.add(task)
        task.add_done_callback(held.leaving.discard)
        task.add_done_callback(lambda _: self._step())

    async def _unload(self, held: Held, model: Model, number: int | None) -> None:
        assert self._rollout is not None
        try:
            await self._rollout.unload(model)
        except Exception:
            log.exception("unloading %s failed", model)
        if number is not None:
            held.tried.pop(number, None)
            held.versions.unloaded(number)
            log.info("%s/%d is unloaded", held.name, number)

    def _known(self, name: str) -> Held:
        if name not in self._held:
            raise NotFound(f"Could not find any versions of model {name}")
        return self._held[name]

    def __repr__(self) -> str:
        return (
            f"<Repository {', '.join(self.served()) or 'nothing served'}{' | ' + self.trouble if self.trouble else ''}>"
        )


def _wishes(settings: WorkerSettings, settle_seconds: float) -> Wishes:
    """What the settings ask for. Raises ConfigurationError."""
    policy, labels = Policy.parse(settings.version_policy), parse_labels(settings.version_labels)
    if settings.model_config and settings.models:
        raise ConfigurationError("--models and --model-config: one of them, please")
    if settings.model_config:
        return ConfigFile(Path(settings.model_config), settle_seconds)
    if settings.models:
        return Directory(Path(settings.models), policy, labels)
    source = find_source(settings.model, settings)
    return Fixed(ModelConfig((ModelEntry(source.name, settings.model, policy, labels),)))
