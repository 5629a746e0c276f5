"""Keys, key sets and signed tokens of an issuer, and how a verifier answers them."""

import asyncio
import base64
import json
from datetime import UTC, datetime
from functools import cache

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rowmint.errors import UnauthenticatedError
from rowmint.security.identity import Identity, Role
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
    """A token of any parts, also of those that no issuer would sign."""
    return f"{part(header)}.{part(claims() if payload is None else payload)}.{part(signature)}"


def identify(verifier, token, now=NOW):
    return asyncio.run(verifier.identify(token, now))


def refusal(verifier, token, now=NOW):
    with pytest.raises(UnauthenticatedError) as caught:
        identify(verifier, token, now)
    return caught.value.message


def by_set(tmp_path, *members):
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(*members))
    return TokenVerifier(str(path), ISSUER, AUDIENCE)
