"""Bearer tokens: which are taken, and where the keys that verify them come from."""

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from structlog.testing import capture_logs

from rowmint.errors import InvalidFieldError, UnauthenticatedError, UnavailableError
from rowmint.security.certificates import issue_certificate, make_authority
from rowmint.security.identity import Identity, Role
from rowmint.security.token_keys import FRESH_SECONDS, MAX_BYTES, PAUSE_SECONDS
from rowmint.security.tokens import TokenVerifier

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
SECONDS = NOW.timestamp()
ISSUER = "https://issuer.example"
AUDIENCE = "rowmint"
ADA = Identity("token:ada", {"flights": Role.TRAINER})
INVALID = "the token's signature cannot be verified with the issuer's keys; request a new token from the issuer"
MALFORMED = "the bearer credential is malformed; send a complete signed JWT or API key"
UNTAKEN = "the token's signing algorithm is not accepted; it must be one of RS256, PS256, ES256, EdDSA"
KINDS = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


@cache
def _private(kind, number):
    return KINDS[kind]()


def private(algorithm, number=0):
    """One of the keys that all tests share: to make an RSA key takes long."""
    return _private("RS256" if algorithm == "PS256" else algorithm, number)


def public_pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key, **members):
    kind = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
    }
    algorithm = next((one for of, one in kind.items() if isinstance(key, of)), jwt.algorithms.OKPAlgorithm)
    made = algorithm.to_jwk(key.public_key(), as_dict=True)
    made.pop("key_ops", None)
    return {**made, **members}


def jwks(*members):
    return json.dumps({"keys": list(members)}).encode()


def claims(**changes):
    whole = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "iat": SECONDS,
        "exp": SECONDS + 600,
        "rowmint": {"flights": "trainer"},
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not ...}


def signed(key, algorithm, header=None, **changes):
    return jwt.encode(claims(**changes), key, algorithm, headers=header)


def part(value):
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def forged(header, payload=None, signature=b"x"):
    """A token of any parts, whoever would make it."""
    return f"{part(header)}.{part(claims() if payload is None else payload)}.{part(signature)}"


def identify(verifier, token, now=NOW):
    return asyncio.run(verifier.identify(token, now))


def refusal(verifier, token, now=NOW):
    with pytest.raises(UnauthenticatedError) as caught:
        identify(verifier, token, now)
    return caught.value.message


@pytest.fixture
def pem(tmp_path):
    """A verifier by one Ed25519 key, and the file of that key."""
    path = tmp_path / "key.pem"
    path.write_bytes(public_pem(private("EdDSA")))
    return path


@pytest.fixture
def verifier(pem):
    return TokenVerifier(str(pem), ISSUER, AUDIENCE)


def by_set(tmp_path, *members):
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(*members))
    return TokenVerifier(str(path), ISSUER, AUDIENCE)


def test_a_token_tells_who_bears_it_and_what_they_may_do(verifier):
    token = signed(private("EdDSA"), "EdDSA", rowmint={"*": "reader", "flights": "admin"})
    assert identify(verifier, token) == Identity("token:ada", {"*": Role.READER, "flights": Role.ADMIN})


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_every_algorithm_that_is_taken_is_verified_by_pem_and_by_set(algorithm, tmp_path):
    path = tmp_path / "key.pem"
    path.write_bytes(public_pem(private(algorithm)))
    token = signed(private(algorithm), algorithm)
    for verifier in (
        TokenVerifier(str(path), ISSUER, AUDIENCE),
        by_set(tmp_path, jwk(private(algorithm), kid="a", alg=algorithm, use="sig", key_ops=["verify"])),
    ):
        assert identify(verifier, token) == ADA
        assert refusal(verifier, signed(private(algorithm, 1), algorithm)) == INVALID
        assert refusal(verifier, token[:-6] + ("A" * 6 if token[-6:] != "A" * 6 else "B" * 6)) == INVALID


def test_any_other_payload_has_no_valid_signature(verifier):
    header, _, signature = signed(private("EdDSA"), "EdDSA").split(".")
    assert refusal(verifier, f"{header}.{part(claims(sub='eve'))}.{signature}") == INVALID


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, 7, ["EdDSA"], {"EdDSA": 1}])
def test_an_unsigned_token_is_refused_however_it_says_so(verifier, algorithm):
    for signature in (b"", b"x"):
        assert refusal(verifier, forged({"alg": algorithm, "typ": "JWT"}, signature=signature)) == UNTAKEN


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
def test_what_everybody_may_know_signs_nothing(tmp_path, algorithm, kind):
    """The public key as the secret of an HMAC: whoever lets the token choose takes that."""
    path = tmp_path / "key.pem"
    text = public_pem(private(kind))
    path.write_bytes(text)
    digest = getattr(hashlib, f"sha{algorithm[2:]}")
    for verifier in (
        TokenVerifier(str(path), ISSUER, AUDIENCE),
        by_set(tmp_path, jwk(private(kind), kid="a"), {"kty": "oct", "k": part(text), "kid": "a"}),
    ):
        for secret in (text, text.strip(), text.strip() + b"\n"):
            signing_input = forged({"alg": algorithm, "kid": "a"}).rpartition(".")[0]
            token = f"{signing_input}.{part(hmac.digest(secret, signing_input.encode(), digest))}"
            assert refusal(verifier, token) == UNTAKEN


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS512", "ES384", "ES256K", "Ed448", "eddsa", "RS256 "])
def test_an_algorithm_that_is_not_taken_is_refused(verifier, algorithm):
    assert refusal(verifier, forged({"alg": algorithm})) == UNTAKEN


@pytest.mark.parametrize(
    ("kind", "claimed"),
    [
        ("RS256", "ES256"),
        ("RS256", "EdDSA"),
        ("ES256", "RS256"),
        ("ES256", "EdDSA"),
        ("EdDSA", "PS256"),
        ("EdDSA", "ES256"),
    ],
)
def test_a_key_verifies_nothing_that_another_type_of_key_is_for(tmp_path, kind, claimed):
    own = signed(private(kind), kind).rpartition(".")[2]
    head, payload, _ = forged({"alg": claimed, "kid": "a"}).split(".")
    verifier = by_set(tmp_path, jwk(private(kind), kid="a"))
    assert refusal(verifier, f"{head}.{payload}.{own}") == INVALID


def test_a_key_of_a_set_verifies_only_what_it_says_it_is_for(tmp_path):
    verifier = by_set(tmp_path, jwk(private("RS256"), kid="a", alg="PS256"))
    assert identify(verifier, signed(private("RS256"), "PS256", {"kid": "a"})) == ADA
    assert refusal(verifier, signed(private("RS256"), "RS256", {"kid": "a"})) == INVALID


@pytest.mark.parametrize(
    "member",
    [
        {"use": "enc"},
        {"use": None},
        {"key_ops": ["encrypt", "wrapKey"]},
        {"key_ops": "verify"},
        {"alg": "ES384"},
        {"alg": "HS256"},
        {"alg": None},
        {"kid": 5},
        {"kid": ["a"]},
        {"x": "AA"},
        {"x": "%"},
        {"x": 7},
        {"y": "A" * 43},
        {"crv": "P-384"},
        {"crv": ["P-256"]},
        {"kty": "RSA"},
        {"kty": ["EC"]},
        {"d": part(b"\1" * 32)},
        {"d": part(b"\1")},
    ],
)
def test_a_member_of_a_set_that_cannot_verify_tokens_is_left_out(tmp_path, member):
    odd = {**jwk(private("ES256"), kid="a"), **member}
    verifier = by_set(tmp_path, odd, 7, None, [], {}, jwk(private("EdDSA"), kid="b"))
    assert refusal(verifier, signed(private("ES256"), "ES256")) == INVALID
    assert identify(verifier, signed(private("EdDSA"), "EdDSA")) == ADA
    with pytest.raises(InvalidFieldError, match="has no key that can verify tokens: RSA of 2048 bits or more"):
        by_set(tmp_path, odd)


def test_a_token_that_names_its_key_is_verified_by_no_other(tmp_path):
    verifier = by_set(tmp_path, jwk(private("EdDSA"), kid="a"), jwk(private("EdDSA", 1), kid="b"))
    for number, own in enumerate("ab"):
        key = private("EdDSA", number)
        assert identify(verifier, signed(key, "EdDSA", {"kid": own})) == ADA
        assert identify(verifier, signed(key, "EdDSA")) == ADA
        for other in {"a", "b", "c", ""} - {own}:
            assert refusal(verifier, signed(key, "EdDSA", {"kid": other})) == INVALID


def test_two_keys_may_have_one_name(tmp_path):
    verifier = by_set(tmp_path, jwk(private("EdDSA"), kid="a"), jwk(private("EdDSA", 1), kid="a"))
    assert identify(verifier, signed(private("EdDSA", 1), "EdDSA", {"kid": "a"})) == ADA


@pytest.mark.parametrize(
    "kid",
    ["../../../../dev/null", "/dev/null", "' OR 1=1 --", "http://127.0.0.1:9/keys", "a\x00", "\ud800", "a" * 4000],
)
def test_the_name_of_a_key_is_compared_and_nothing_else(tmp_path, kid):
    """A name that opens a file of known content, such as an empty one, would let anybody sign."""
    verifier = by_set(tmp_path, jwk(private("EdDSA"), kid="a"))
    assert refusal(verifier, signed(private("EdDSA", 1), "EdDSA", {"kid": kid})) == INVALID
    assert refusal(verifier, signed(private("EdDSA"), "EdDSA", {"kid": kid})) == INVALID


@pytest.mark.parametrize("kid", [7, None, ["a"], {"a": 1}, True])
def test_a_name_of_a_key_is_text(verifier, kid):
    assert refusal(verifier, forged({"alg": "EdDSA", "kid": kid})) == MALFORMED


def test_a_key_that_the_token_brings_is_not_looked_at(verifier):
    own = private("EdDSA", 1)
    header = {"jwk": jwk(own), "jku": "http://127.0.0.1:9/", "x5u": "http://127.0.0.1:9/", "x5c": ["AA"]}
    assert refusal(verifier, signed(own, "EdDSA", header)) == INVALID
    assert identify(verifier, signed(private("EdDSA"), "EdDSA", header)) == ADA


@pytest.mark.parametrize("critical", [["exp"], ["b64"], [], None, "b64"])
def test_what_a_token_calls_critical_is_never_ignored(verifier, critical):
    # Some releases of PyJWT find that before us, and some do not.
    message = refusal(verifier, forged({"alg": "EdDSA", "crit": critical, "exp": 1, "b64": True}))
    assert message in {"the token has critical header fields, which are not supported here", MALFORMED}


def test_a_payload_that_is_not_base64_is_refused(verifier):
    header = part({"alg": "EdDSA", "b64": False, "crit": ["b64"]})
    signing_input = f"{header}.{json.dumps(claims(), separators=(',', ':'))}"
    signature = private("EdDSA").sign(signing_input.encode())
    assert refusal(verifier, f"{signing_input}.{part(signature)}") == MALFORMED


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "e30=.e30=.e30=",
        f"{part([])}.e30.e30",
        f"{part('alg')}.e30.e30",
        f"{part(b'{')}.e30.e30",
        f"{part(bytes([255, 254]))}.e30.e30",
        "\u0430.\u0430.\u0430",
        "\ud800.a.b",
        "a.b.c\n",
        " a.b.c",
        pytest.param(f"{part(b'[' * 5000)}.e30.e30", id="deep header"),
        pytest.param(f"{part(b'1' * 5000)}.e30.e30", id="long number"),
        pytest.param(part(b'{"alg":' + b"[" * 5000) + ".e30.e30", id="deep algorithm"),
    ],
)
def test_what_is_no_token_is_malformed(verifier, token):
    assert refusal(verifier, token) == MALFORMED


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b'"a"',
        b"null",
        b"\xff",
        pytest.param(b"[" * 5000, id="deep"),
        pytest.param(b"1" * 5000, id="long"),
    ],
)
def test_a_signed_payload_that_holds_no_claims_is_malformed(verifier, payload):
    token = jwt.api_jws.encode(payload, private("EdDSA"), "EdDSA")
    assert refusal(verifier, token) == MALFORMED


def test_a_long_token_is_refused_before_anybody_reads_it(verifier, monkeypatch):
    room = signed(private("EdDSA"), "EdDSA", pad="")
    padded = signed(private("EdDSA"), "EdDSA", pad="a" * ((8190 - len(room)) * 3 // 4))
    assert 8180 < len(padded) <= 8192
    assert identify(verifier, padded) == ADA
    read = []
    monkeypatch.setattr(jwt, "get_unverified_header", read.append)
    assert refusal(verifier, "a" * 8193) == "the token is longer than 8192 bytes"
    assert refusal(verifier, padded + "A" * 20) == "the token is longer than 8192 bytes"
    assert read == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"exp": SECONDS - 30}, "the token has expired; request a new one from its issuer"),
        ({"exp": 0}, "the token has expired; request a new one from its issuer"),
        ({"exp": -(10**9)}, "the token has expired; request a new one from its issuer"),
        ({"nbf": SECONDS + 31}, "the token is not valid yet: its claim 'nbf' is in the future"),
        ({"iat": SECONDS + 31}, "the token is not valid yet: its claim 'iat' is in the future"),
        ({"iss": "https://issuer.example/"}, "tokens of this issuer are not accepted here"),
        ({"iss": "HTTPS://issuer.example"}, "tokens of this issuer are not accepted here"),
        ({"iss": [ISSUER]}, "tokens of this issuer are not accepted here"),
        ({"iss": None}, "tokens of this issuer are not accepted here"),
        *(
            ({"aud": other}, "the token is for another audience; request one for this service from its issuer")
            for other in ("other", "rowmint2", "row", "", None, [], ["other"], [["rowmint"]], {"rowmint": 1}, 7)
        ),
        *(({name: ...}, f"the token has no claim {name!r}") for name in ("iss", "aud", "exp", "sub", "rowmint")),
        *(
            ({"exp": value}, "the token's claim 'exp' must be a number of seconds since 1970")
            for value in (None, True, "9999999999", [], float("nan"), float("inf"), 10**400, 1e300)
        ),
        ({"nbf": "0"}, "the token's claim 'nbf' must be a number of seconds since 1970"),
        ({"nbf": None}, "the token's claim 'nbf' must be a number of seconds since 1970"),
        ({"iat": False}, "the token's claim 'iat' must be a number of seconds since 1970"),
        ({"iat": float("nan")}, "the token's claim 'iat' must be a number of seconds since 1970"),
        *(
            ({"sub": value}, "the token's claim 'sub' must be 1 to 256 printable characters")
            for value in ("", "a\nb", "\x1b[31m", "a" * 257, None, 7, ["ada"])
        ),
        *(
            (
                {"rowmint": value},
                'the token\'s claim \'rowmint\': must be an object of roles by project, such as {"flights": "trainer"}',
            )
            for value in (None, "admin", ["admin"], 3)
        ),
        (
            {"rowmint": {"flights": "root"}},
            "the token's claim 'rowmint': the role in project 'flights' must be reader, trainer or admin",
        ),
        (
            {"rowmint": {"flights": 3}},
            "the token's claim 'rowmint': the role in project 'flights' must be reader, trainer or admin",
        ),
        (
            {"rowmint": {"flights/x": "reader"}},
            (
                "the token's claim 'rowmint': 'flights/x' is not an id: 1 to 63 characters of a-z, 0-9 and '-',"
                " starting with a letter"
            ),
        ),
    ],
)
def test_a_token_whose_claims_do_not_hold_is_refused_and_told_why(verifier, changes, told):
    # PyJWT itself would refuse to write some of these.
    payload = json.dumps(claims(**changes)).encode()
    assert refusal(verifier, jwt.api_jws.encode(payload, private("EdDSA"), "EdDSA")) == told


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": SECONDS - 29},
        {"exp": SECONDS + 0.5},
        {"nbf": SECONDS + 30},
        {"nbf": 0},
        {"iat": SECONDS + 30},
        {"iat": ...},
        {"aud": ["other", AUDIENCE]},
        {"other": {"rowmint": "admin"}},
    ],
)
def test_a_token_whose_claims_hold_is_taken(verifier, changes):
    assert identify(verifier, signed(private("EdDSA"), "EdDSA", **changes)) == ADA


def test_a_token_without_grants_for_anything_is_somebody_who_may_do_nothing(verifier):
    assert identify(verifier, signed(private("EdDSA"), "EdDSA", rowmint={})) == Identity("token:ada", {})


def test_a_token_ends_by_the_clock_it_is_given(verifier):
    token = signed(private("EdDSA"), "EdDSA")
    assert identify(verifier, token, NOW + timedelta(seconds=629)) == ADA
    assert refusal(verifier, token, NOW + timedelta(seconds=630)).startswith("the token has expired")
    assert refusal(verifier, token, NOW - timedelta(seconds=31)).startswith("the token is not valid yet")


def test_a_claim_is_not_told_of_before_the_signature_is_valid(verifier):
    assert refusal(verifier, signed(private("EdDSA", 1), "EdDSA", exp=0, aud="other", iss="other")) == INVALID


def test_an_unknown_key_and_a_wrong_signature_read_the_same(tmp_path):
    verifier = by_set(tmp_path, jwk(private("EdDSA"), kid="a"))
    wrong = private("EdDSA", 1)
    assert {refusal(verifier, signed(wrong, "EdDSA", {"kid": kid})) for kid in ("a", "b")} == {INVALID}


def test_a_file_of_keys_is_read_again_when_it_changes(pem, verifier):
    old, new = (signed(private("EdDSA", number), "EdDSA", {"kid": "x"}) for number in (0, 1))
    assert (identify(verifier, old), refusal(verifier, new)) == (ADA, INVALID)
    pem.write_bytes(jwks(jwk(private("EdDSA", 1), kid="x")))
    assert (identify(verifier, new), refusal(verifier, old)) == (ADA, INVALID)
    pem.write_bytes(b"neither")
    with capture_logs() as logs:
        assert [identify(verifier, new) for _ in range(3)] == [ADA] * 3
    assert [line["log_level"] for line in logs] == ["warning"]
    assert b"neither".decode() not in str(logs)


def private_pem():
    return private("EdDSA").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda: b"", "must hold one public key"),
        (lambda: b"ssh-ed25519 AAAA", "must hold one public key"),
        (lambda: b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "must hold a valid public key"),
        (lambda: public_pem(private("EdDSA")) * 2, "must hold one public key"),
        (private_pem, "holds a private key"),
        (lambda: public_pem(rsa.generate_private_key(65537, 1024)), "RSA of 2048 bits or more, P-256 or Ed25519"),
        (lambda: public_pem(ec.generate_private_key(ec.SECP384R1())), "RSA of 2048 bits or more, P-256 or Ed25519"),
        (lambda: public_pem(ed448.Ed448PrivateKey.generate()), "RSA of 2048 bits or more, P-256 or Ed25519"),
        (lambda: b"{}", "it has no list 'keys'"),
        (lambda: b'{"keys": {}}', "it has no list 'keys'"),
        (lambda: b'{"keys": []}', "has no key that can verify tokens"),
        (lambda: b'{"keys": [', "is not JSON that can be parsed"),
        (lambda: b'{"keys":' + b"[" * 100_000, "is not JSON that can be parsed"),
        (lambda: jwks(*[jwk(private("EdDSA"), kid="a")] * 65), "has 65 keys; at most 64 are allowed"),
        (lambda: jwks({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}), "has no key that can verify tokens"),
        (lambda: jwks(jwk(rsa.generate_private_key(65537, 1024))), "has no key that can verify tokens"),
    ],
)
def test_a_service_does_not_start_on_keys_that_verify_nothing(tmp_path, content, told):
    path = tmp_path / "keys"
    path.write_bytes(content())
    with pytest.raises(InvalidFieldError) as caught:
        TokenVerifier(str(path), ISSUER, AUDIENCE)
    assert told in caught.value.message
    assert str(path) in caught.value.message
    assert "c2VjcmV0" not in caught.value.message


def test_a_service_does_not_start_without_its_file_of_keys(tmp_path):
    with pytest.raises(UnavailableError, match="No such file or directory"):
        TokenVerifier(str(tmp_path / "none"), ISSUER, AUDIENCE)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://issuer.example/jwks", "keys sent without TLS can be forged; use https://"),
        ("http://10.0.0.1/jwks", "keys sent without TLS can be forged; use https://"),
        ("http://localhost.issuer.example/jwks", "keys sent without TLS can be forged; use https://"),
        ("http://127.0.0.1.issuer.example/jwks", "keys sent without TLS can be forged; use https://"),
        ("ftp://issuer.example/jwks", "must be the path of a file or an https:// URL"),
        ("file:///etc/jwks", "must be the path of a file or an https:// URL"),
        ("https:///jwks", "must be the path of a file or an https:// URL"),
        ("https://ada:secret@issuer.example/jwks", "has a user name or password in its URL"),
        ("http://127.0.0.1@issuer.example/jwks", "has a user name or password in its URL"),
        ("https://issuer.example:99999/jwks", "is not a URL that can be parsed"),
        ("https://[::1/jwks", "is not a URL that can be parsed"),
    ],
)
def test_keys_come_from_nowhere_that_others_can_speak_for(url, told):
    with pytest.raises(InvalidFieldError) as caught:
        TokenVerifier(url, ISSUER, AUDIENCE)
    assert told in caught.value.message
    assert "secret" not in caught.value.message


class KeyServer:
    """An issuer's server of keys."""

    def __init__(self, context=None):
        self.body = b""
        self.status = 200
        self.headers = {}
        self.asked = []
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Semaphore(0)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                outer.waiting.release()
                outer.open.wait(30)
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with_body = outer.body
                try:
                    self.wfile.write(with_body)
                except OSError:
                    return  # whoever asked has had enough

            def log_message(self, *_):
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.scheme = "http"
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.scheme = "https"
        self.server.handle_error = lambda *_: None
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server.server_port}/keys?tenant=q"

    def close(self):
        self.open.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@contextmanager
def serving(context=None):
    server = KeyServer(context)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def issuer():
    with serving() as server:
        server.body = jwks(jwk(private("EdDSA"), kid="a"))
        yield server


class Clock:
    """Monotonic seconds that pass when told to."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fetching(issuer, clock):
    return TokenVerifier(issuer.url, ISSUER, AUDIENCE, clock)


def by(number, kid, **changes):
    return signed(private("EdDSA", number), "EdDSA", {"kid": kid}, **changes)


async def settle(verifier):
    """Wait until no fetch is on its way."""
    if verifier._keys._task is not None:
        await verifier._keys._task


def test_keys_are_fetched_when_first_needed_and_then_kept(issuer, clock, fetching):
    assert issuer.asked == []
    assert [identify(fetching, by(0, "a")) for _ in range(3)] == [ADA] * 3
    clock.seconds += FRESH_SECONDS - 1
    assert identify(fetching, by(0, "a")) == ADA
    assert issuer.asked == ["/keys?tenant=q"]


def test_a_key_that_is_taken_out_is_refused_after_five_minutes(issuer, clock, fetching):
    assert identify(fetching, by(0, "a")) == ADA
    issuer.body = jwks(jwk(private("EdDSA", 1), kid="b"))
    clock.seconds += FRESH_SECONDS
    assert refusal(fetching, by(0, "a")) == INVALID
    assert identify(fetching, by(1, "b")) == ADA
    assert len(issuer.asked) == 2


def test_a_new_key_is_fetched_when_a_token_names_it(issuer, clock, fetching):
    assert identify(fetching, by(0, "a")) == ADA
    issuer.body = jwks(jwk(private("EdDSA"), kid="a"), jwk(private("EdDSA", 1), kid="b"))
    clock.seconds += PAUSE_SECONDS
    assert identify(fetching, by(1, "b")) == ADA
    assert len(issuer.asked) == 2


def test_unknown_keys_cause_a_fetch_every_ten_seconds_at_most(issuer, clock, fetching):
    assert identify(fetching, by(0, "a")) == ADA
    assert {refusal(fetching, by(1, f"x{number}")) for number in range(20)} == {INVALID}
    assert len(issuer.asked) == 1
    clock.seconds += PAUSE_SECONDS - 0.1
    assert refusal(fetching, by(1, "x")) == INVALID
    assert len(issuer.asked) == 1
    clock.seconds += 0.1
    assert {refusal(fetching, by(1, f"x{number}")) for number in range(20)} == {INVALID}
    assert len(issuer.asked) == 2


def test_what_is_no_token_causes_no_fetch(issuer, fetching):
    for token in ("a.b.c", forged({"alg": "none"}), forged({"alg": "HS256"}), "a" * 9000):
        refusal(fetching, token)
    assert issuer.asked == []


def test_many_calls_at_once_wait_for_one_fetch(issuer, fetching):
    issuer.open.clear()

    async def many():
        calls = [asyncio.create_task(fetching.identify(by(0, "a"), NOW)) for _ in range(20)]
        await asyncio.to_thread(issuer.waiting.acquire)
        calls[0].cancel()
        issuer.open.set()
        return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(many())
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [ADA] * 19
    assert len(issuer.asked) == 1


def test_the_event_loop_is_free_while_keys_are_fetched(issuer, fetching):
    issuer.open.clear()

    async def both():
        call = asyncio.create_task(fetching.identify(by(0, "a"), NOW))
        await asyncio.to_thread(issuer.waiting.acquire)
        # Whatever else there is to do is done, and only then the keys come.
        issuer.open.set()
        return await call

    assert asyncio.run(both()) == ADA


def test_while_the_issuer_is_away_the_last_keys_stay_in_force(issuer, clock, fetching):
    assert identify(fetching, by(0, "a")) == ADA
    issuer.status = 503

    async def hours():
        found = []
        for _ in range(5):
            clock.seconds += FRESH_SECONDS
            found += [await fetching.identify(by(0, "a"), NOW) for _ in range(3)]
            await settle(fetching)
        return found

    with capture_logs() as logs:
        assert asyncio.run(hours()) == [ADA] * 15
    assert len(issuer.asked) == 6
    assert [line["log_level"] for line in logs] == ["warning"]
    assert "HTTP status 503" in logs[0]["error"]
    assert "tenant" not in str(logs)
    issuer.status = 200
    issuer.body = jwks(jwk(private("EdDSA", 1), kid="b"))
    clock.seconds += PAUSE_SECONDS
    assert identify(fetching, by(1, "b")) == ADA
    assert refusal(fetching, by(0, "a")) == INVALID


def test_once_the_issuer_is_away_no_call_with_a_known_key_waits_for_it(issuer, clock, fetching):
    assert identify(fetching, by(0, "a")) == ADA
    issuer.status = 503
    clock.seconds += FRESH_SECONDS
    assert identify(fetching, by(0, "a")) == ADA
    clock.seconds += PAUSE_SECONDS
    while issuer.waiting.acquire(blocking=False):
        pass
    issuer.open.clear()

    async def call():
        found = await fetching.identify(by(0, "a"), NOW)
        # It is answered, and the server still holds the fetch.
        await asyncio.to_thread(issuer.waiting.acquire)
        assert not fetching._keys._task.done()
        issuer.open.set()
        await settle(fetching)
        return found

    assert asyncio.run(call()) == ADA
    assert len(issuer.asked) == 3


def test_without_any_keys_yet_a_call_may_be_tried_again(issuer, clock, fetching):
    issuer.status = 500
    with pytest.raises(UnavailableError, match="cannot be fetched now; retry the call") as caught:
        identify(fetching, by(0, "a"))
    assert caught.value.retry_after == PAUSE_SECONDS
    with pytest.raises(UnavailableError):
        identify(fetching, by(0, "a"))
    assert len(issuer.asked) == 1
    issuer.status = 200
    clock.seconds += PAUSE_SECONDS
    assert identify(fetching, by(0, "a")) == ADA


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "must hold one public key"),
        (b"<html>", "must hold one public key"),
        (b'{"keys": []}', "has no key that can verify tokens"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}', "has no key that can verify tokens"),
        (b'{"keys": "a"}', "it has no list 'keys'"),
        pytest.param(b" " * (MAX_BYTES + 1), "more than 1048576 bytes", id="large"),
    ],
)
def test_a_set_that_cannot_be_used_leaves_the_last_one_in_force(issuer, clock, fetching, body, told):
    assert identify(fetching, by(0, "a")) == ADA
    issuer.body = body
    clock.seconds += FRESH_SECONDS
    with capture_logs() as logs:
        assert identify(fetching, by(0, "a")) == ADA
    assert [told in line["error"] for line in logs] == [True]
    assert "c2VjcmV0" not in str(logs)


def test_a_redirect_is_not_followed(issuer, clock, fetching):
    with serving() as other:
        other.body = jwks(jwk(private("EdDSA", 1), kid="b"))
        issuer.status = 302
        issuer.headers = {"Location": other.url}
        with pytest.raises(UnavailableError):
            identify(fetching, by(1, "b"))
        assert other.asked == []


def tls_context(made, folder):
    """What a server shows `made` with."""
    file = folder / "server.pem"
    file.write_bytes(made.certificate + made.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def drip(server, context, start, end, given_up):
    """Answer one request a byte at a time, and after three seconds with all that is still to say."""
    connection, _ = server.accept()
    connection.settimeout(30)
    with connection if context is None else context.wrap_socket(connection, server_side=True) as answering:
        try:
            answering.recv(4096)
            answering.sendall(start)
            for _ in range(60):
                if given_up.wait(0.05):
                    return
                answering.sendall(b" ")
            answering.sendall(end)
        except OSError:
            return  # whoever asked has had enough


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("dripped", ["headers", "body"])
def test_a_server_that_drips_is_given_up(tmp_path, clock, monkeypatch, scheme, dripped):
    context = None
    if scheme == "https":
        now = datetime.now(UTC)
        authority = make_authority("test", now)
        context = tls_context(issue_certificate(authority, "server", now, hosts=["127.0.0.1"]), tmp_path)
        (tmp_path / "ca.pem").write_bytes(authority.certificate)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr("rowmint.security.token_keys.FETCH_SECONDS", 0.5)
    answer = b"HTTP/1.1 200 OK\r\nSlow:\r\n\r\n" + jwks(jwk(private("EdDSA"), kid="a"))
    # A body of no said length that is cut may look whole.
    cut = answer.index(b"\r\n\r\n") if dripped == "headers" else len(answer)
    given_up = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        verifier = TokenVerifier(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/", ISSUER, AUDIENCE, clock)
        thread = threading.Thread(target=drip, args=(server, context, answer[:cut], answer[cut:], given_up))
        thread.start()
        try:
            with pytest.raises(UnavailableError):
                identify(verifier, by(0, "a"))
        finally:
            given_up.set()
            thread.join()


def test_no_more_is_read_of_a_set_than_it_may_have(clock, monkeypatch):
    # Less than the server goes on for: who waits for the rest is late.
    monkeypatch.setattr("rowmint.security.token_keys.FETCH_SECONDS", 2.0)
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b" " * (MAX_BYTES + 1)
    given_up = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        verifier = TokenVerifier(f"http://127.0.0.1:{server.getsockname()[1]}/", ISSUER, AUDIENCE, clock)
        thread = threading.Thread(target=drip, args=(server, None, start, b"", given_up))
        thread.start()
        try:
            with capture_logs() as logs, pytest.raises(UnavailableError):
                identify(verifier, by(0, "a"))
        finally:
            given_up.set()
            thread.join()
    assert ["more than 1048576 bytes" in line["error"] for line in logs] == [True]


def test_nobody_there_is_an_issuer_that_is_away(clock):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    verifier = TokenVerifier(f"http://localhost:{port}/keys", ISSUER, AUDIENCE, clock)
    with capture_logs() as logs, pytest.raises(UnavailableError):
        identify(verifier, by(0, "a"))
    assert len(logs) == 1


def test_keys_come_over_tls_from_a_server_that_is_who_it_says(tmp_path, monkeypatch, clock):
    now = datetime.now(UTC)
    authority = make_authority("test", now)
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(authority.certificate)

    def taken(made):
        with serving(tls_context(made, tmp_path)) as server:
            server.body = jwks(jwk(private("EdDSA"), kid="a"))
            try:
                return identify(TokenVerifier(server.url, ISSUER, AUDIENCE, clock), by(0, "a"))
            except UnavailableError:
                assert server.asked == []
                return None

    own = issue_certificate(authority, "server", now, hosts=["127.0.0.1"])
    assert taken(own) is None
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    assert taken(own) == ADA
    assert taken(issue_certificate(authority, "server", now, hosts=["127.0.0.2"])) is None
    assert taken(issue_certificate(make_authority("test", now), "server", now, hosts=["127.0.0.1"])) is None
