# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates for secure boot, as an example of what an HMC sends to a partition."""

import subprocess
from pathlib import Path

from .errors import LabError

# File, subject, and how many alternative names. 400 names need several messages.
CERTIFICATES = (("PK.crt", "Platform Key", 1), ("KEK.crt", "Key Exchange Key", 1),
                ("db.crt", "Signature Database", 400))


def make_certificates(directory: Path) -> list[Path]:
    """Make self-signed X.509 certificates in DIRECTORY: of a platform key, a key-exchange key and a database."""
    return [_make(directory / name, subject, names) for name, subject, names in CERTIFICATES]


def _make(path: Path, subject: str, names: int) -> Path:
    alternatives = ",".join(f"DNS:signer-{number}.example" for number in range(names))
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-sha256", "-nodes", "-days", "3650",
                           "-subj", f"/O=Example/CN={subject}", "-addext", f"subjectAltName={alternatives}",
                           "-keyout", "/dev/null", "-outform", "DER", "-out", path],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if made.returncode:
        raise LabError(f"openssl could not make {path.name}:\n{made.stdout}")
    return path
