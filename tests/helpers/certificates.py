"""Certificates for servers and clients of tests."""

import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(directory: Path, name: str, issuer: Path | None = None) -> Path:
    """Write a certificate for `name` with its key to a file, and return its path.

    It is signed by the certificate in the file `issuer`, or by itself.
    """
    path = directory / f"{name}.pem"
    path.write_bytes(b"".join(_key_and_certificate(x509.DNSName(name), issuer=issuer)))
    return path


def write_certificates(directory: Path) -> None:
    """Write `ca.pem`, and `cert.pem` and `key.pem` for both ends, as in `DOCKER_CERT_PATH`."""
    here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    key, made = _key_and_certificate(x509.DNSName("localhost"), here)
    for name, content in (("ca", made), ("cert", made), ("key", key)):
        (directory / f"{name}.pem").write_bytes(content)


def tls_server(path: Path) -> ssl.SSLContext:
    """Return the TLS context of a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def _key_and_certificate(name: x509.DNSName, *more: x509.GeneralName, issuer: Path | None = None) -> tuple[bytes, bytes]:
    """Return both as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = signer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name.value)])
    signing_key: Any = key
    if issuer is not None:
        signer = x509.load_pem_x509_certificate(issuer.read_bytes()).subject
        signing_key = serialization.load_pem_private_key(issuer.read_bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([name, *more]), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(signing_key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, made.public_bytes(serialization.Encoding.PEM)
