"""An authority of our own, and what it signed: for a server at 127.0.0.1, for a client, and those of a stranger."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

# Extensions as RFC 5280 wants them; OpenSSL's defaults differ from one machine to the next.
CONFIGURATION = """
[req]
distinguished_name = name
prompt = no
[name]
CN = fairway test
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1, IP:::1
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[client]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class Authority:
    """`pem` is what to trust; `issue()` signs."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        (folder / "openssl.cnf").write_text(CONFIGURATION)
        self.pem, self._key = self._make(name, "authority")

    def issue(self, name: str, kind: str = "server") -> tuple[Path, Path]:
        """-> certificate, key. `kind`: server or client."""
        return self._make(name, kind, "-CA", str(self.pem), "-CAkey", str(self._key))

    def _make(self, name: str, extensions: str, *signer: str) -> tuple[Path, Path]:
        cert, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        openssl(
            "req", "-x509", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-config", str(self._folder / "openssl.cnf"), "-extensions", extensions, "-subj", f"/CN={name}", *signer,
            "-keyout", str(key), "-out", str(cert),
        )  # fmt: skip
        key.chmod(0o600)
        return cert, key


class Certificates:
    def __init__(self, folder: Path) -> None:
        self.authority, self.stranger = Authority(folder, "authority"), Authority(folder, "stranger")
        self.ca = self.authority.pem
        self.server_cert, self.server_key = self.authority.issue("server")
        self.client_cert, self.client_key = self.authority.issue("client", "client")
        self.stranger_cert, self.stranger_key = self.stranger.issue("strangers-client", "client")


@cache
def certificates() -> Certificates:
    """Made once a run; the test that asks is skipped where there is no openssl."""
    folder = Path(tempfile.mkdtemp(prefix="fairway-certificates-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Certificates(folder)


def openssl(*arguments: str) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    made = subprocess.run(["openssl", *arguments], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
