"""Who we are at a registry: read from files, never shown."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from fairway.registry.credentials import Credentials, StoreSettings
from fairway.registry.errors import ConfigurationError

from .certificates import certificates

SECRET = "S3CRET-0123456789"


def token_file(folder: Path, content: bytes) -> Path:
    path = folder / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_nothing_asked_for_is_nothing_shown() -> None:
    assert StoreSettings().credentials() == Credentials()
    assert Credentials(token=SECRET).tls() is None


@pytest.mark.parametrize("content", [SECRET, f"{SECRET}\n", f"  {SECRET} \r\nmore of it\n"])
def test_the_token_is_the_first_line(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    path = token_file(tmp_path, content.encode())
    credentials = StoreSettings(registry_token_file=path).credentials()
    assert credentials.token == SECRET
    assert SECRET not in repr(credentials)
    assert not caplog.text
    path.chmod(0o644)
    StoreSettings(registry_token_file=path).credentials()
    assert f"chmod 600 {path}" in caplog.text


@pytest.mark.parametrize("content", [b"", b"\n" + SECRET.encode(), b"\xff\xfe", f"{SECRET} read\n".encode(), None])
def test_a_token_file_that_will_not_do_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = token_file(tmp_path, content) if content is not None else tmp_path / "nowhere"
    with pytest.raises(ConfigurationError, match=r"^--registry-token-file ") as caught:
        StoreSettings(registry_token_file=path).credentials()
    assert str(path) in str(caught.value)
    assert "S3CRET" not in str(caught.value)


def test_a_key_without_its_certificate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--registry-cert"):
        StoreSettings(registry_key=tmp_path / "key").credentials()


def test_tls_is_asked_for_by_an_authority_a_certificate_or_the_scheme(tmp_path: Path) -> None:
    made = certificates()
    everybody = Credentials().tls(always=True)
    assert everybody
    assert everybody.verify_mode == ssl.CERT_REQUIRED
    assert everybody.check_hostname
    ours = Credentials(ca=made.ca).tls()
    assert ours
    assert [name["serialNumber"] for name in ours.get_ca_certs()]
    assert len(ours.get_ca_certs()) == 1  # theirs only, not the system's besides
    assert Credentials(cert=made.client_cert, key=made.client_key).tls()


def test_files_that_will_not_do_are_named(tmp_path: Path) -> None:
    made = certificates()
    for credentials in (
        Credentials(ca=tmp_path / "nowhere.pem"),
        Credentials(ca=made.ca, cert=tmp_path / "nowhere.pem"),
        Credentials(ca=made.ca, cert=made.client_cert, key=tmp_path / "nowhere.pem"),
    ):
        with pytest.raises(ConfigurationError, match=r"--registry-ca.*nowhere\.pem"):
            credentials.tls()
