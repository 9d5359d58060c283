"""Settings from three places: the command line wins over the environment, the environment over the default."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from fairway.registry.config import RegistrySettings
from fairway.registry.errors import ConfigurationError
from fairway.registry.options import add_options, option, read_options


@dataclass(frozen=True)
class Settings:
    port: int = option(12481, "port to listen on")
    wait_seconds: float = option(2.5, "how long to wait")
    name: str = option("", "what to call it")
    folder: Path = option(Path("models"), "where the models lie")
    mode: Literal["forward", "address"] = option("forward", "how it answers")
    allow: tuple[str, ...] = option((), "networks, 100 % trusted")
    ways: tuple[str, ...] = option(("address", "forward"), "how it is asked")
    insecure: bool = option(False, "do it anyway", env="FAIRWAY_REGISTRY_INSECURE")
    made_by_code: int = 7


def read(line: str = "", **environment: str) -> Settings:
    parser = argparse.ArgumentParser()
    add_options(parser, Settings)
    return read_options(Settings, parser.parse_args(line.split()), environment)


def test_defaults() -> None:
    assert read() == Settings()


@pytest.mark.parametrize(
    ("field", "line", "variable", "given", "expected"),
    [
        ("port", "--port", "FAIRWAY_PORT", "80", 80),
        ("wait_seconds", "--wait-seconds", "FAIRWAY_WAIT_SECONDS", "0.25", 0.25),
        ("name", "--name", "FAIRWAY_NAME", "x", "x"),
        ("folder", "--folder", "FAIRWAY_FOLDER", "/m", Path("/m")),
        ("mode", "--mode", "FAIRWAY_MODE", "address", "address"),
        ("allow", "--allow", "FAIRWAY_ALLOW", "10.0.0.0/8,,::1", ("10.0.0.0/8", "::1")),
    ],
)
def test_each_type_from_both_places(field: str, line: str, variable: str, given: str, expected: object) -> None:
    from_line = getattr(read(f"{line} {given}"), field)
    assert (from_line, type(from_line)) == (expected, type(expected))
    assert getattr(read(**{variable: given}), field) == expected


def test_who_wins() -> None:
    assert read(FAIRWAY_PORT="80").port == 80
    assert read("--port 81", FAIRWAY_PORT="80").port == 81
    assert read("--port 81", FAIRWAY_PORT="nonsense").port == 81, "what is overruled is not read"
    assert read("--no-insecure", FAIRWAY_REGISTRY_INSECURE="1").insecure is False
    assert read(FAIRWAY_INSECURE="1").insecure is False, "a field with a name of its own has only that one"
    assert read(FAIRWAY_MADE_BY_CODE="8").made_by_code == 7, "a field without a help text is no option"


def test_the_real_environment_is_the_default_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRWAY_NAME", "from outside")
    assert read_options(Settings, argparse.Namespace()).name == "from outside"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", True), ("true", True), ("Yes", True), ("0", False), ("FALSE", False), ("no", False), ("", False)],
)
def test_yes_and_no_in_the_environment(text: str, expected: bool) -> None:
    assert read(FAIRWAY_REGISTRY_INSECURE=text).insecure is expected


@pytest.mark.parametrize(
    ("line", "environment", "text"),
    [
        ("--port eighty", {}, "--port: 'eighty' will not do: a whole number from 0 up is needed"),
        ("--port 1.5", {}, "--port: '1.5' will not do: a whole number from 0 up is needed"),
        ("", {"FAIRWAY_PORT": ""}, "FAIRWAY_PORT: '' will not do: a whole number from 0 up is needed"),
        ("--wait-seconds soon", {}, "--wait-seconds: 'soon' will not do: a number from 0 up is needed"),
        ("", {"FAIRWAY_WAIT_SECONDS": "s"}, "FAIRWAY_WAIT_SECONDS: 's' will not do: a number from 0 up is needed"),
        ("--mode dns", {}, "--mode: 'dns' will not do: one of forward, address is needed"),
        ("", {"FAIRWAY_REGISTRY_INSECURE": "maybe"},
         "FAIRWAY_REGISTRY_INSECURE: 'maybe' will not do: yes or no is needed"),
    ],
)  # fmt: skip
def test_errors_name_the_option(line: str, environment: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(line, **environment)
    assert str(caught.value) == text


def test_a_field_without_default_is_required() -> None:
    @dataclass(frozen=True)
    class Wanting:
        model_dir: str

    with pytest.raises(ConfigurationError, match=r"^--model-dir is required$"):
        read_options(Wanting, argparse.Namespace(), {})


def test_help_tells_default_and_environment() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, Settings)
    text = " ".join(parser.format_help().split())
    assert "--port PORT port to listen on (default: 12481; FAIRWAY_PORT)" in text
    assert "--wait-seconds SECONDS how long to wait (default: 2.5; FAIRWAY_WAIT_SECONDS)" in text
    assert "--mode forward|address" in text
    assert "networks, 100 % trusted (default: none; FAIRWAY_ALLOW)" in text
    assert "how it is asked (default: address,forward; FAIRWAY_WAYS)" in text
    assert "--insecure, --no-insecure" in text
    assert "made-by-code" not in text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"port": -1}, "--port -1"),
        ({"port": 65536}, "--port 65536"),
        ({"heartbeat_seconds": 0.0}, "--heartbeat-seconds 0.0"),
        ({"heartbeat_seconds": float("nan")}, "--heartbeat-seconds nan"),
        ({"heartbeat_seconds": 60.0}, "--heartbeat-seconds 60.0"),
        ({"max_connections": 0}, "--max-connections 0"),
        ({"host": "0.0.0.0"}, "--host 0.0.0.0: anybody who reaches"),
        ({"host": ""}, "--host"),
    ],
)
def test_the_registry_checks_its_settings(given: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{text}"):
        RegistrySettings(**given)


def test_listening_elsewhere_wants_a_word() -> None:
    assert RegistrySettings(host="0.0.0.0", insecure=True).host == "0.0.0.0"
    assert RegistrySettings(host="::1").host == "::1"
