"""The servers' own certificates: an authority that clients verify by, and a certificate for the node they run on."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mlflow_server.places import write_private

YEARS = 10
SLACK = timedelta(days=1)  # for clocks that differ between nodes


def make_certificates(folder: Path, hosts: Sequence[str]) -> None:
    """Write `ca.pem` and `ca.key`, unless they are there and valid, and a new `server.pem` and `server.key`.

    Args:
        hosts: names and addresses that the server's certificate is for.
    """
    ca, key = folder / "ca.pem", folder / "ca.key"
    if not (ca.exists() and key.exists() and _is_valid(ca)):
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
    write_private(folder / "server.pem", _text(built.sign(signer, hashes.SHA256())))


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


def _is_valid(path: Path) -> bool:
    """Whether a certificate can be read and is valid for another year."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        return False
    return certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=365)


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
