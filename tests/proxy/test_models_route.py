"""Paths that name a model lead to workers that have it: how they are read, who is chosen, and through a real proxy."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from time import monotonic

import pytest

from fairway.client.pool import Outcome, Pool
from fairway.client.resolver import Resolver
from fairway.proxy import Proxy
from fairway.proxy.route import model_of, route
from fairway.registry.instance import Address, Instance
from fairway.registry.link import Link

from .stage import HOST, Worker, proxy_for, says, session_to, until
from .test_manners import services


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/models/flowers", "flowers"),
        ("/v1/models/flowers:predict", "flowers"),
        ("/v1/models/flowers/metadata", "flowers"),
        ("/v1/models/flowers/versions/2", "flowers/2"),
        ("/v1/models/flowers/versions/002:predict", "flowers/2"),
        ("/v1/models/flowers/versions/2/metadata", "flowers/2"),
        ("/v1/models/flowers/labels/stable:predict", "flowers"),
        ("/v1/models/wild%20flowers:image", "wild flowers"),
        ("/v1/models/flowers/versions/two:predict", "flowers"),
        ("/v1/models/flowers/versions/" + "9" * 5000, "flowers"),
        ("/v1/models/", ""),
        ("/v1/models", ""),
        ("/v2/models/flowers/infer", "flowers"),
        ("/v2/models/flowers/versions/2/infer", "flowers/2"),
        ("/v2/models/a:b/ready", "a:b"),
        ("/v2/repository/models/flowers/load", ""),
        ("/v3/models/flowers", ""),
        ("/", ""),
    ],
)
def test_which_model_a_path_names(path: str, model: str) -> None:
    assert model_of(path) == model
    assert route("auto", "POST", path + "?top=3", None, "classify").model == model
    assert route("auto", "POST", "/-/services/pets" + path, None, "classify").model == model
    direct = route("auto", "POST", "/-/direct" + path, None, "classify")
    assert (direct.manner, direct.model, direct.target) == ("redirect", model, path)


# -- who is chosen --------------------------------------------------------------------------------------------------


def instance(id: str, *models: str, port: int = 0, service: str = "classify") -> Instance:
    return Instance(id, service, Address(HOST, port or 9000 + ord(id)), models=models)


def pool(*instances: Instance, limit: int = 0) -> Pool:
    made = Pool(worker_limit=limit)
    made.update(instances, 0.0)
    return made


def ids(made: Pool, model: str, now: float = 0.0, exclude: tuple[str, ...] = ()) -> str:
    return "".join(upstream.id for upstream in made.candidates(now, exclude, made.meant(model)))


def test_only_those_who_have_it() -> None:
    made = pool(instance("a", "cat/1"), instance("b", "dog/1", "cat/2"), instance("c", "dog/2"), instance("d"))
    assert (ids(made, "cat"), ids(made, "dog"), ids(made, "")) == ("ab", "bc", "abcd")
    assert (ids(made, "cat/1"), ids(made, "cat/2"), ids(made, "dog/2")) == ("a", "b", "c")


def test_of_a_version_that_nobody_has_those_tell_who_have_the_model() -> None:
    made = pool(instance("a", "cat/1"), instance("b", "dog/1"))
    assert ids(made, "cat/7") == "a"


def test_of_a_model_that_nobody_names_anybody_may_tell() -> None:
    made = pool(instance("a", "cat/1"), instance("b"))
    assert (ids(made, "bird"), ids(made, "bird/1")) == ("ab", "ab")


def test_who_does_not_tell_its_versions_has_any() -> None:
    made = pool(instance("a", "cat"), instance("b", "dog/1"))
    assert (ids(made, "cat"), ids(made, "cat/3")) == ("a", "a")


def test_better_one_in_doubt_that_has_it_than_one_that_has_it_not() -> None:
    made = pool(instance("a", "cat/1"), instance("b", "dog/1"), instance("c", "dog/1"))
    cat = made.upstreams[0]
    made.busy(cat, 5.0)
    assert (ids(made, ""), ids(made, "cat")) == ("bc", "a")
    for _ in range(3):
        made.started(cat, 1.0)
        made.finished(cat, Outcome.CONNECTION, 1.0)
    assert (ids(made, "", 1.0), ids(made, "cat", 1.0), ids(made, "cat", 1.0, ("a",))) == ("bc", "a", "")


def test_who_is_full_gets_no_more_and_then_again() -> None:
    made = pool(instance("a", "cat/1"), instance("b", "cat/1"), limit=1)
    made.started(made.upstreams[0], 0.0)
    assert ids(made, "cat") == "b"
    made.started(made.upstreams[1], 0.0)
    assert ids(made, "cat") == ""
    made.finished(made.upstreams[0], Outcome.ANSWERED, 0.0)
    assert ids(made, "cat") == "a"


def test_models_that_come_and_go() -> None:
    made = pool(instance("a", "cat/1"), instance("b", "cat/1"))
    made.update([instance("a", "cat/1", "cat/2"), instance("b", "cat/1")], 1.0)
    assert (ids(made, "cat/2"), ids(made, "cat/1")) == ("a", "ab")
    made.update([instance("a", "cat/2"), instance("b", "dog/1")], 2.0)
    assert (ids(made, "cat"), ids(made, "cat/1"), ids(made, "dog")) == ("a", "a", "b")


@asynccontextmanager
async def resolved(*rows: Instance, worker_limit: int = 0) -> AsyncIterator[Resolver]:
    """What a proxy knows when these are registered, each at a worker of its own that listens."""
    hub, link, _ = await services()
    # Who joins later would have fewer turns for a while.
    resolver = Resolver(Address(HOST, hub.port), worker_limit=worker_limit, slow_start_seconds=0)
    await resolver.start()
    async with AsyncExitStack() as stack:
        for one in (hub, link, resolver):
            stack.push_async_callback(one.close)
        for row in rows:
            worker = await stack.enter_async_context(Worker())
            await link.announce(replace(row, address=worker.address))
        await until(lambda: len(resolver.some("classify", 9)) == len(rows))
        yield resolver


async def test_each_model_has_its_own_turn() -> None:
    rows = instance("a", "cat/1", "dog/1"), instance("b", "cat/1", "dog/1")
    async with resolved(*rows) as resolver:
        served: dict[str, Counter[str]] = {"cat": Counter(), "dog": Counter()}
        for _ in range(20):
            for model, count in served.items():
                found = resolver.choose_now("classify", (), b"", model)
                assert found is not None
                count[found[1].id] += 1
        assert served == {"cat": {"a": 10, "b": 10}, "dog": {"a": 10, "b": 10}}
        assert {one.id for one in resolver.some("classify", 3, b"", "cat/9")} == {"a", "b"}


async def test_who_waits_for_a_model_takes_nobody_elses_room() -> None:
    async with resolved(instance("a", "cat/1"), instance("b", "dog/1"), worker_limit=1) as resolver:
        taken = {}
        for model in ("cat", "dog"):
            found = resolver.choose_now("classify", (), b"", model)
            assert found is not None
            taken[model] = found
            found[0].started(found[1], monotonic())
        cat = asyncio.create_task(resolver.choose("classify", (), 10.0, b"", "cat"))
        anybody = asyncio.create_task(resolver.choose("classify", (), 10.0))
        dog = asyncio.create_task(resolver.choose("classify", (), 10.0, b"", "dog"))
        await asyncio.sleep(0)
        made, worker = taken["dog"]
        made.finished(worker, Outcome.ANSWERED, monotonic())
        for task in (anybody, dog):
            chosen = await task
            assert chosen is not None
            assert chosen[1].id == "b"
        assert not cat.done()
        made, worker = taken["cat"]
        made.finished(worker, Outcome.ANSWERED, monotonic())
        chosen = await cat
        assert chosen is not None
        assert chosen[1].id == "a"


# -- through a proxy ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def zoo() -> AsyncIterator[tuple[Proxy, Link, dict[str, Worker]]]:
    """A proxy before a worker that has cats and one that has dogs, both of one service."""
    hub, link, resolver = await services()
    async with (
        Worker(says(200, b"a cat")) as cats,
        Worker(says(200, b"a dog")) as dogs,
        proxy_for(resolver=resolver) as proxy,
    ):
        await link.announce(instance("c", "cat/1", port=cats.address.port))
        await link.announce(instance("d", "dog/1", "dog/2", port=dogs.address.port))
        await until(lambda: resolver.has("classify") and len(resolver.some("classify", 9)) == 2)
        yield proxy, link, {"cat": cats, "dog": dogs}
        await link.close()
    await hub.close()


async def test_requests_go_where_the_model_is() -> None:
    async with zoo() as (proxy, _, workers), session_to(proxy) as session:
        for _ in range(4):
            for path, said in (
                ("/v1/models/cat:predict", b"a cat"),
                ("/v1/models/dog/versions/2:predict", b"a dog"),
                ("/v2/models/dog/infer", b"a dog"),
                ("/-/services/classify/v2/models/cat/versions/1/infer", b"a cat"),
                ("/-/direct/v1/models/dog:predict", b"a dog"),
            ):
                async with session.post(path, data=b"x") as answer:
                    assert await answer.read() == said
        assert {seen.target for seen in workers["cat"].requests} == {
            "/v1/models/cat:predict",
            "/v2/models/cat/versions/1/infer",
        }


async def test_a_model_that_moves_is_followed() -> None:
    async with zoo() as (proxy, link, workers), session_to(proxy) as session:
        await link.announce(instance("c", "dog/3", port=workers["cat"].address.port))
        await link.announce(instance("d", "cat/2", port=workers["dog"].address.port))
        resolver = proxy.resolver
        await until(lambda: [one.id for one in resolver.some("classify", 9, b"", "cat")] == ["d"])
        async with session.post("/v1/models/cat:predict", data=b"x") as answer:
            assert await answer.read() == b"a dog"


async def test_the_only_one_that_has_it_is_gone() -> None:
    async with zoo() as (proxy, _, workers), session_to(proxy) as session:
        await workers["cat"].__aexit__(None, None, None)
        async with session.post("/v1/models/cat:predict", data=b"x") as answer:
            assert answer.status in (502, 503)
        assert not workers["dog"].requests, "who has it not is not asked"
        async with session.post("/v1/models/dog:predict", data=b"x") as answer:
            assert await answer.read() == b"a dog"


async def test_addresses_of_those_who_have_it() -> None:
    async with (
        resolved(instance("c", "cat/1"), instance("d", "dog/1")) as resolver,
        proxy_for(resolver=resolver, mode="address", address_format="port") as proxy,
        session_to(proxy) as session,
    ):
        (dogs,) = resolver.some("classify", 9, b"", "dog")
        for _ in range(4):  # the same request again is answered from memory where it can be
            async with session.get("/v1/models/dog") as said:
                assert await said.text() == f"{dogs.address.port}\n"
