"""The servers' own certificates: an authority that clients verify by, and a certificate for the node they run on."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bdqm_tune.mlflow_server.paths import write_private

YEARS = 10
SLACK = timedelta(days=1)  # for clocks that differ between nodes
LEAST = timedelta(days=365)  # that a certificate is valid when the servers start
RENEW_BEFORE, WARN_BEFORE = timedelta(days=1), timedelta(days=60)  # its end: by running servers; in `status`


def make_certificates(folder: Path, hosts: Sequence[str]) -> None:
    """Write `ca.pem` and `ca.key`, `server.pem` and `server.key`, unless they are there and will be valid for a year.

    Args:
        hosts: names and addresses that the server's certificate is for; other ones need another certificate.
    """
    ca, key = folder / "ca.pem", folder / "ca.key"
    if not _is_valid(ca, key):
        authority = ec.generate_private_key(ec.SECP256R1())
        name = _name("bdqm-tune authority")
        built = (
            _certificate(name, name, authority.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
        )
        write_private(key, _key_text(authority))
        write_private(ca, _text(built.sign(authority, hashes.SHA256())))
    signer = serialization.load_pem_private_key(key.read_bytes(), password=None)
    issuer = x509.load_pem_x509_certificate(ca.read_bytes())
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    certificate = folder / "server.pem"
    if _is_valid(certificate, folder / "server.key") and _is_for(certificate, issuer, hosts):
        return
    private = ec.generate_private_key(ec.SECP256R1())
    built = (
        _certificate(_name("bdqm-tune server"), issuer.subject, private.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
            critical=False,
        )
    )
    write_private(folder / "server.key", _key_text(private))
    write_private(certificate, _text(built.sign(signer, hashes.SHA256())))


def expiry(folder: Path) -> datetime | None:
    """When the first of the certificates in a folder becomes invalid; None: they are not there."""
    found = [_read(folder / name) for name in ("ca.pem", "server.pem")]
    return min((one.not_valid_after_utc for one in found if one is not None), default=None)


def expires(folder: Path) -> bool:
    """Whether running servers should get new certificates: within a day there are none that are valid."""
    end = expiry(folder)
    return end is not None and datetime.now(UTC) > end - RENEW_BEFORE


def warning(folder: Path) -> str:
    """A warning about certificates that expire soon, or have expired; empty: none."""
    end, now = expiry(folder), datetime.now(UTC)
    if end is None or now < end - WARN_BEFORE:
        return ""
    return f"the certificates {'expire' if now < end else 'have expired'} on {end:%Y-%m-%d}"


def fingerprint(path: Path) -> str:
    """The SHA-256 fingerprint of a certificate as browsers show it; empty if there is none."""
    certificate = _read(path)
    return "" if certificate is None else certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _certificate(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(now + timedelta(days=365 * YEARS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _read(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _is_valid(path: Path, key: Path) -> bool:
    """Whether a certificate can be read and is valid, will be for another year, and is that of a key."""
    certificate, now = _read(path), datetime.now(UTC)
    if certificate is None or not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - LEAST:
        return False
    try:  # one of the two may have been written alone
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (FileNotFoundError, ValueError):
        return False
    return private.public_key() == certificate.public_key()


def _is_for(path: Path, issuer: x509.Certificate, hosts: Sequence[str]) -> bool:
    """Whether a certificate was signed by this authority, for just these hosts."""
    certificate = _read(path)
    assert certificate is not None
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(names) == {_alternative(host) for host in hosts}


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_text(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
