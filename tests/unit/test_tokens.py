"""Bearer tokens: which are accepted, and why others are refused."""

import hashlib
import hmac
import json
from datetime import timedelta

import jwt
import pytest
from structlog.testing import capture_logs

from rowmint.errors import InvalidFieldError
from rowmint.security.identity import Identity, Role
from rowmint.security.tokens import TokenVerifier
from tests.unit.signed_tokens import (
    ADA,
    AUDIENCE,
    INVALID,
    ISSUER,
    MALFORMED,
    NOW,
    SECONDS,
    UNTAKEN,
    by_set,
    claims,
    forged,
    identify,
    jwk,
    jwks,
    part,
    private,
    public_pem,
    refusal,
    signed,
)


@pytest.fixture
def pem(tmp_path):
    """A verifier by one Ed25519 key, and the file of that key."""
    path = tmp_path / "key.pem"
    path.write_bytes(public_pem(private("EdDSA")))
    return path


@pytest.fixture
def verifier(pem):
    return TokenVerifier(str(pem), ISSUER, AUDIENCE)


def test_a_token_identifies_its_bearer_and_roles(verifier):
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
def test_an_unsigned_token_is_refused_in_every_spelling(verifier, algorithm):
    for signature in (b"", b"x"):
        assert refusal(verifier, forged({"alg": algorithm, "typ": "JWT"}, signature=signature)) == UNTAKEN


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("kind", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_is_not_accepted_as_a_shared_secret(tmp_path, algorithm, kind):
    """The public key as the secret of an HMAC: a verifier that lets the token choose accepts that."""
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
    """A name that opens a file of known content, such as an empty one, would let any caller sign."""
    verifier = by_set(tmp_path, jwk(private("EdDSA"), kid="a"))
    assert refusal(verifier, signed(private("EdDSA", 1), "EdDSA", {"kid": kid})) == INVALID
    assert refusal(verifier, signed(private("EdDSA"), "EdDSA", {"kid": kid})) == INVALID


@pytest.mark.parametrize("kid", [7, None, ["a"], {"a": 1}, True])
def test_a_name_of_a_key_is_text(verifier, kid):
    assert refusal(verifier, forged({"alg": "EdDSA", "kid": kid})) == MALFORMED


def test_a_key_inside_the_token_is_ignored(verifier):
    own = private("EdDSA", 1)
    header = {"jwk": jwk(own), "jku": "http://127.0.0.1:9/", "x5u": "http://127.0.0.1:9/", "x5c": ["AA"]}
    assert refusal(verifier, signed(own, "EdDSA", header)) == INVALID
    assert identify(verifier, signed(private("EdDSA"), "EdDSA", header)) == ADA


@pytest.mark.parametrize("critical", [["exp"], ["b64"], [], None, "b64"])
def test_critical_headers_are_never_ignored(verifier, critical):
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
def test_a_text_that_is_not_a_token_is_malformed(verifier, token):
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


def test_a_long_token_is_refused_before_it_is_parsed(verifier, monkeypatch):
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
    ("changes", "reported"),
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
def test_a_token_with_invalid_claims_is_refused_with_the_reason(verifier, changes, reported):
    # PyJWT itself would refuse to write some of these.
    payload = json.dumps(claims(**changes)).encode()
    assert refusal(verifier, jwt.api_jws.encode(payload, private("EdDSA"), "EdDSA")) == reported


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
def test_a_token_with_valid_claims_is_accepted(verifier, changes):
    assert identify(verifier, signed(private("EdDSA"), "EdDSA", **changes)) == ADA


def test_a_token_without_grants_identifies_a_caller_without_roles(verifier):
    assert identify(verifier, signed(private("EdDSA"), "EdDSA", rowmint={})) == Identity("token:ada", {})


def test_a_token_ends_by_the_clock_it_is_given(verifier):
    token = signed(private("EdDSA"), "EdDSA")
    assert identify(verifier, token, NOW + timedelta(seconds=629)) == ADA
    assert refusal(verifier, token, NOW + timedelta(seconds=630)).startswith("the token has expired")
    assert refusal(verifier, token, NOW - timedelta(seconds=31)).startswith("the token is not valid yet")


def test_no_claim_is_reported_before_the_signature_is_valid(verifier):
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
