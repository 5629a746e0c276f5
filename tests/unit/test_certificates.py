"""Certificates of one's own authority: what they say, and who believes them."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rowmint.errors import InvalidFieldError
from rowmint.security.certificates import CertificateAndKey, issue_certificate, make_authority

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
AUTHORITY = make_authority("test authority", NOW)
SPIFFE = "spiffe://example.org/nightly"


def read(made):
    return x509.load_pem_x509_certificate(made.certificate)


def extension(made, kind):
    return read(made).extensions.get_extension_for_class(kind)


def common_name(name):
    return [one.value for one in name.get_attributes_for_oid(NameOID.COMMON_NAME)]


def test_an_authority_signs_certificates_for_ten_years_and_no_authorities():
    certificate = read(AUTHORITY)
    assert common_name(certificate.subject) == ["test authority"]
    assert certificate.issuer == certificate.subject
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert certificate.not_valid_after_utc == datetime(2036, 1, 31, 8, 0, tzinfo=UTC)
    constraints = extension(AUTHORITY, x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    usage = extension(AUTHORITY, x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, True, False)
    certificate.verify_directly_issued_by(certificate)


def test_a_server_is_named_by_its_hosts_and_a_client_by_its_names():
    server = issue_certificate(AUTHORITY, "server", NOW, hosts=["rowmint.example", "*.local", "10.0.0.7", "::1"])
    names = extension(server, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["rowmint.example", "*.local"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "::1"]
    assert list(extension(server, x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    ]
    client = issue_certificate(AUTHORITY, "ada", NOW, uris=[SPIFFE])
    assert common_name(read(client).subject) == ["ada"]
    names = extension(client, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [SPIFFE]
    assert list(extension(client, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    plain = issue_certificate(AUTHORITY, "ada", NOW)
    with pytest.raises(x509.ExtensionNotFound):
        extension(plain, x509.SubjectAlternativeName)


def test_what_is_issued_issues_nothing():
    made = issue_certificate(AUTHORITY, "ada", NOW)
    read(made).verify_directly_issued_by(read(AUTHORITY))
    constraints = extension(made, x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    usage = extension(made, x509.KeyUsage)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.digital_signature) == (True, False, True)
    with pytest.raises(InvalidFieldError, match="authority: its certificate is not the certificate of an authority"):
        issue_certificate(made, "eve", NOW)


def test_every_certificate_has_a_key_and_a_number_of_its_own():
    made = [issue_certificate(AUTHORITY, "ada", NOW) for _ in range(3)]
    assert len({one.key for one in made}) == 3
    assert len({read(one).serial_number for one in made}) == 3
    for one in made:
        key = load_pem_private_key(one.key, None)
        assert isinstance(key.curve, ec.SECP256R1)
        assert key.public_key() == read(one).public_key()


@pytest.mark.parametrize(
    ("days", "end"),
    [
        (1, datetime(2026, 2, 1, 8, 0, tzinfo=UTC)),
        (90, datetime(2026, 5, 1, 8, 0, tzinfo=UTC)),
        # No longer than its authority.
        (100_000, datetime(2036, 1, 31, 8, 0, tzinfo=UTC)),
        (10**12, datetime(2036, 1, 31, 8, 0, tzinfo=UTC)),
    ],
)
def test_a_certificate_ends_when_it_should(days, end):
    assert read(issue_certificate(AUTHORITY, "ada", NOW, days=days)).not_valid_after_utc == end


def test_no_certificate_outlives_its_authority():
    late = datetime(2036, 1, 1, tzinfo=UTC)
    assert read(issue_certificate(AUTHORITY, "ada", late)).not_valid_after_utc == datetime(
        2036, 1, 31, 8, 0, tzinfo=UTC
    )


def test_ninety_days_are_the_default():
    assert read(issue_certificate(AUTHORITY, "ada", NOW)).not_valid_after_utc == NOW + timedelta(days=90)


@pytest.mark.parametrize("days", [0, -1])
def test_a_certificate_is_valid_for_a_day_at_least(days):
    with pytest.raises(InvalidFieldError, match=f"days: {days} must be 1 or more"):
        issue_certificate(AUTHORITY, "ada", NOW, days=days)


@pytest.mark.parametrize("name", ["", "a" * 65, "a\nb", "a\x00"])
def test_a_name_that_cannot_be_is_refused(name):
    with pytest.raises(InvalidFieldError, match="must be 1 to 64 printable characters"):
        issue_certificate(AUTHORITY, name, NOW)
    with pytest.raises(InvalidFieldError, match="must be 1 to 64 printable characters"):
        make_authority(name, NOW)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "",
            " ",
            "a b",
            "a\n",
            "-a",
            "a-",
            ".a",
            "a.",
            "a..b",
            "*",
            "a.*.b",
            "a/b",
            "a:50051",
            "http://a",
            "10.0.0.0/8",
        ),
        *("ü.example", "\u212a.example"),
        *("a" * 64, "a." * 127 + "aa"),
    ],
)
def test_what_is_no_host_is_refused(host):
    with pytest.raises(InvalidFieldError, match="must be a DNS name or an IP address, such as"):
        issue_certificate(AUTHORITY, "server", NOW, hosts=["a.example", host])


@pytest.mark.parametrize(
    "uri", ["", "ada", "spiffe:", "spiffe://", "//a", "spiffe://a b", "spiffe://ü", "a://[", "a://b\n"]
)
def test_what_is_no_uri_is_refused(uri):
    with pytest.raises(InvalidFieldError, match=r"must be a URI, such as spiffe://example\.org/nightly"):
        issue_certificate(AUTHORITY, "ada", NOW, uris=[SPIFFE, uri])


def test_an_authority_that_is_none_issues_nothing():
    other = make_authority("other", NOW)
    mixed = CertificateAndKey(AUTHORITY.certificate, other.key)
    with pytest.raises(InvalidFieldError, match="authority: the private key does not match its certificate"):
        issue_certificate(mixed, "eve", NOW)
    edwards = ed25519.Ed25519PrivateKey.generate()
    pem = edwards.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(InvalidFieldError, match="authority: the private key does not match its certificate"):
        issue_certificate(CertificateAndKey(AUTHORITY.certificate, pem), "eve", NOW)
    for certificate, key in (
        (b"", AUTHORITY.key),
        (AUTHORITY.certificate, b""),
        (AUTHORITY.key, AUTHORITY.certificate),
    ):
        with pytest.raises(InvalidFieldError, match="authority: its certificate or its private key cannot be read"):
            issue_certificate(CertificateAndKey(certificate, key), "eve", NOW)


def test_an_authority_that_has_expired_issues_nothing():
    with pytest.raises(InvalidFieldError, match="authority: its certificate has expired"):
        issue_certificate(AUTHORITY, "ada", datetime(2036, 1, 31, 8, 0, tzinfo=UTC))


def test_a_private_key_is_not_reported():
    assert "PRIVATE" not in repr(AUTHORITY)


class Handshake:
    """Both ends of a TLS connection in memory, on certificates that are valid now."""

    def __init__(self, folder):
        self.folder = folder
        self.now = datetime.now(UTC)
        self.authority = make_authority("test authority", self.now)
        self.known = self.written("ca", self.authority.certificate)

    def written(self, name, content):
        path = self.folder / f"{name}.pem"
        path.write_bytes(content)
        return path

    def context(self, protocol, made, purpose):
        context = ssl.SSLContext(protocol)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.known)
        context.load_cert_chain(self.written(purpose, made.certificate + made.key))
        return context

    def shake(self, server, client, host):
        """Return the names that the server sees, or raise what the side that refuses says."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = [
            self.context(ssl.PROTOCOL_TLS_CLIENT, client, "client").wrap_bio(
                to_client, to_server, server_hostname=host
            ),
            self.context(ssl.PROTOCOL_TLS_SERVER, server, "server").wrap_bio(to_server, to_client, server_side=True),
        ]
        for _ in range(10):
            for end in tuple(ends):
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                ends.remove(end)
                if end.server_side:
                    return end.getpeercert()
        raise AssertionError("the handshake does not end")

    def issue(self, name, **options):
        return issue_certificate(self.authority, name, self.now, **options)


@pytest.fixture
def handshake(tmp_path):
    return Handshake(tmp_path)


@pytest.mark.parametrize("host", ["rowmint.example", "127.0.0.1"])
def test_both_ends_believe_what_their_authority_issued(handshake, host):
    server = handshake.issue("server", hosts=["rowmint.example", "127.0.0.1"])
    found = handshake.shake(server, handshake.issue("ada", uris=[SPIFFE]), host)
    assert found["subject"] == ((("commonName", "ada"),),)
    assert found["subjectAltName"] == (("URI", SPIFFE),)


def test_a_server_of_another_name_or_authority_or_purpose_is_not_believed(handshake):
    client = handshake.issue("ada")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake.shake(handshake.issue("server", hosts=["other.example"]), client, "rowmint.example")
    # A client's certificate that bears a server's name as its own.
    with pytest.raises(ssl.SSLCertVerificationError, match=r"unsuitable certificate purpose|unsupported certificate"):
        handshake.shake(handshake.issue("rowmint.example"), client, "rowmint.example")
    untrusted = make_authority("test authority", handshake.now)
    server = issue_certificate(untrusted, "server", handshake.now, hosts=["rowmint.example"])
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake.shake(server, client, "rowmint.example")


def test_a_client_of_another_authority_or_past_its_time_is_not_believed(handshake):
    server = handshake.issue("server", hosts=["rowmint.example"])
    untrusted = issue_certificate(make_authority("test authority", handshake.now), "ada", handshake.now)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake.shake(server, untrusted, "rowmint.example")
    old = issue_certificate(handshake.authority, "ada", handshake.now - timedelta(days=91))
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
        handshake.shake(server, old, "rowmint.example")
