"""Which door a request came to: the whole table."""

from __future__ import annotations

import pytest

from fairway.proxy.config import Mode
from fairway.proxy.errors import BadRequest, NotFound
from fairway.proxy.route import Manner, Route, route

MODES: tuple[Mode, ...] = ("auto", "forward", "address", "redirect")


def asked(mode: Mode, method: str, target: str, header: str | None = None) -> Route:
    return route(mode, method, target, header, "classify")


@pytest.mark.parametrize(
    ("method", "target", "manners"),
    [  # in auto, forward, address, redirect
        ("GET", "/", ("address", "forward", "address", "redirect")),
        ("HEAD", "/", ("address", "forward", "address", "redirect")),
        ("GET", "/?format=port", ("address", "forward", "address", "redirect")),
        ("POST", "/", ("forward", "forward", "address", "redirect")),
        ("PUT", "/", ("forward", "forward", "address", "redirect")),
        ("POST", "/?top=3", ("forward", "forward", "address", "redirect")),
        ("GET", "/models", ("forward", "forward", "address", "redirect")),
        ("DELETE", "/any/thing?x=%2F&&y", ("forward", "forward", "address", "redirect")),
        ("GET", "/healthz", ("healthz", "healthz", "address", "healthz")),
        ("GET", "/readyz?verbose", ("readyz", "readyz", "address", "readyz")),
        ("GET", "/-/healthz", ("healthz", "healthz", "healthz", "healthz")),
        ("GET", "/-/readyz", ("readyz", "readyz", "readyz", "readyz")),
        ("POST", "/-/workers", ("workers", "workers", "workers", "workers")),
    ],
)
def test_manner_by_mode(method: str, target: str, manners: tuple[Manner, ...]) -> None:
    for mode, manner in zip(MODES, manners, strict=True):
        assert asked(mode, method, target) == Route(manner, "classify", target), mode


@pytest.mark.parametrize("mode", ["auto", "redirect"])
@pytest.mark.parametrize(
    ("target", "at_worker"),
    [
        ("/-/direct", "/"),
        ("/-/direct/", "/"),
        ("/-/direct?top=1", "/?top=1"),
        ("/-/direct/v1/x?top=1&a=%20", "/v1/x?top=1&a=%20"),
        ("/-/direct//elsewhere/", "//elsewhere/"),
    ],
)
def test_direct(mode: Mode, target: str, at_worker: str) -> None:
    assert asked(mode, "POST", target) == Route("redirect", "classify", at_worker)


@pytest.mark.parametrize(
    ("target", "service", "at_worker", "manner"),
    [
        ("/-/services/pets/", "pets", "/", "forward"),
        ("/-/services/pets", "pets", "/", "forward"),
        ("/-/services/pets?top=1", "pets", "/?top=1", "forward"),
        ("/-/services/pets/a/b?c", "pets", "/a/b?c", "forward"),
        ("/-/services/p%65ts/a%20b", "pets", "/a%20b", "forward"),
        ("/-/services/pets/-/direct/x", "pets", "/x", "redirect"),
    ],
)
def test_service_in_the_path(target: str, service: str, at_worker: str, manner: Manner) -> None:
    assert asked("auto", "POST", target) == Route(manner, service, at_worker, named=True)


def test_a_service_in_the_path_wins_over_the_header() -> None:
    assert asked("auto", "POST", "/", "pets") == Route("forward", "pets", "/", named=True)
    assert asked("auto", "POST", "/-/services/cars/", "pets").service == "cars"
    assert asked("auto", "GET", "/-/services/cars/") == Route("address", "cars", "/", named=True)
    assert asked("auto", "GET", "/-/services/cars/healthz") == asked("auto", "GET", "/-/services/cars/healthz", "x")
    assert asked("auto", "GET", "/-/services/cars/readyz") == asked("auto", "GET", "/-/services/cars/readyz", "cars")
    assert asked("auto", "GET", "/-/readyz", "pets") == Route("readyz", "pets", "/-/readyz", named=True)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "target", ["/-", "/-/", "/-/nothing", "/-/healthz/", "/-/directly", "/-/services/a/-/services/b/"]
)
def test_reserved_paths_that_lead_nowhere(mode: Mode, target: str) -> None:
    with pytest.raises(NotFound):
        asked(mode, "GET", target)


@pytest.mark.parametrize("mode", ["forward", "address"])
def test_direct_only_where_redirects_are_made(mode: Mode) -> None:
    with pytest.raises(NotFound, match=mode):
        asked(mode, "POST", "/-/direct/")


@pytest.mark.parametrize("target", ["*", "", "@elsewhere/", "elsewhere:80", "http://elsewhere/"])
def test_what_is_no_path_never_becomes_part_of_a_worker_url(target: str) -> None:
    with pytest.raises(BadRequest):
        asked("forward", "OPTIONS", target)
