"""A port that is free is one that was bound, not one that was guessed."""

from __future__ import annotations

import socket

import pytest

from fairway.registry.errors import ConfigurationError
from fairway.registry.ports import free_port


def listener(host: str = "127.0.0.1") -> socket.socket:
    held = socket.socket()
    held.bind((host, 0))
    held.listen()
    return held


def test_it_can_be_bound_and_lies_in_the_range() -> None:
    port = free_port(low=20_000, high=29_999)
    assert 20_000 <= port <= 29_999
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", port))


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_somebody_listens_on_is_never_handed_out(host: str) -> None:
    with listener(host) as held:
        port = held.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"no free port between {port} and {port} on 127.0.0.1"):
            free_port(low=port, high=port)


def test_a_port_bound_but_not_yet_listened_on_is_not_handed_out_either() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        with pytest.raises(ConfigurationError):
            free_port(low=port, high=port)


def test_among_taken_ones_it_finds_the_free_one() -> None:
    low = free_port(low=20_000, high=29_990)
    taken: list[socket.socket] = []
    try:
        for port in range(low, low + 8):
            held = socket.socket()
            taken.append(held)
            try:
                held.bind(("127.0.0.1", port))
            except OSError:
                pass  # somebody else's: as good as taken
        ours = taken[3].getsockname()[1] or pytest.skip("another process holds the port this test wants to free")
        taken[3].close()
        assert free_port(low=low, high=low + 7) == ours
    finally:
        for held in taken:
            held.close()


def test_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6) as held:
            held.bind(("::1", 0))
            port = held.getsockname()[1]
            with pytest.raises(ConfigurationError, match="on ::1"):
                free_port("::1", low=port, high=port)
    except OSError:
        pytest.skip("this machine has no IPv6")
