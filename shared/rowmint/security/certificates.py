"""A private certificate authority (RFC 5280) for evaluation and small deployments.

Keys are ECDSA over P-256. Larger deployments use their own authority instead.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rowmint.errors import InvalidFieldError

AUTHORITY_DAYS = 3652
"""Ten years."""
CERTIFICATE_DAYS = 90
MAX_NAME = 64
"""Characters of a common name (RFC 5280, appendix A.1: ub-common-name)."""
_BACKDATING = timedelta(minutes=5)
"""A certificate is valid from this long before now, as clocks differ."""
_DNS_NAME = re.compile(
    r"(?=.{1,253}$)(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)


@dataclass(frozen=True)
class CertificateAndKey:
    """A certificate and its private key, both PEM; the key is not encrypted."""

    certificate: bytes
    key: bytes = field(repr=False)


def make_authority(name: str, now: datetime) -> CertificateAndKey:
    """Return a new authority, valid for ten years. It can issue certificates, but not intermediate authorities.

    Args:
        name: Its common name.
        now: The current time.

    Raises:
        InvalidFieldError: The name is empty or too long.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(name)
    builder = (
        _builder(subject, subject, key.public_key(), now)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
    )
    return _pem(builder.sign(key, SHA256()), key)


def issue_certificate(
    authority: CertificateAndKey,
    name: str,
    now: datetime,
    *,
    hosts: Sequence[str] = (),
    uris: Sequence[str] = (),
    days: int = CERTIFICATE_DAYS,
) -> CertificateAndKey:
    """Return a new client certificate, which is also a server certificate if hosts are given.

    It expires no later than its authority.

    Args:
        authority: The issuing authority.
        name: Its common name.
        now: The current time.
        hosts: DNS names and IP addresses of the server.
        uris: URI alternative names, such as ``spiffe://example.org/nightly``.
        days: Validity, days.

    Raises:
        InvalidFieldError: A name, host, URI or the number of days is invalid, or the authority is invalid or expired.
    """
    issuer, issuer_key = _loaded(authority, now)
    if days < 1:
        raise InvalidFieldError("days", f"{days} must be 1 or more")
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])]
    end = min(now + timedelta(days=min(days, AUTHORITY_DAYS)), issuer.not_valid_after_utc)
    builder = (
        _builder(_subject(name), issuer.subject, key.public_key(), now)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if names := [*map(_host, hosts), *map(_uri, uris)]:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _pem(builder.sign(issuer_key, SHA256()), key)


def _loaded(authority: CertificateAndKey, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(authority.certificate)
        key = load_pem_private_key(authority.key, None)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, x509.ExtensionNotFound) as error:
        raise InvalidFieldError("authority", "its certificate or its private key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise InvalidFieldError("authority", "the private key does not match its certificate")
    if not constraints.ca:
        raise InvalidFieldError("authority", "its certificate is not the certificate of an authority")
    if certificate.not_valid_after_utc <= now:
        raise InvalidFieldError("authority", "its certificate has expired; create a new authority in another folder")
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATING)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _subject(name: str) -> x509.Name:
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidFieldError("name", f"{name!r} must be 1 to {MAX_NAME} printable characters")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not _DNS_NAME.fullmatch(text):
        raise InvalidFieldError(
            "host", f"{text!r} must be a DNS name or an IP address, such as rowmint.example or 10.0.0.7"
        )
    return x509.DNSName(text)


def _uri(text: str) -> x509.GeneralName:
    try:
        parts = urlsplit(text)
        absolute = bool(parts.scheme and (parts.netloc or parts.path))
        name = x509.UniformResourceIdentifier(text)
    except ValueError:
        absolute = False
    if not absolute or not text.isprintable() or " " in text:
        raise InvalidFieldError("uri", f"{text!r} must be a URI, such as spiffe://example.org/nightly")
    return name


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    usage = partial(
        x509.KeyUsage,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return usage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority)


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> CertificateAndKey:
    return CertificateAndKey(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )
