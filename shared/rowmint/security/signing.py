"""Signatures of model versions, which attest that files belong to a model.

The signed statement is an in-toto Statement v1 in a DSSE envelope within a Sigstore bundle, as in OpenSSF model
signing 1.0. The key is Ed25519 (RFC 8032), so signing is deterministic. No field of a bundle, not even its key id, is
trusted before the signature has been verified with a trusted key.
"""

# NOTE[DIFF] to OpenSSF model signing: the subject's digest is `manifest_digest`, by which the registry identifies a
# version, instead of the SHA-256 of the concatenated digests of the resources; its name is the model's full name,
# instead of a folder's; the hint is the SHA-256 of the key's DER form, instead of its PEM text; and the key type
# Ed25519 is not in theirs.

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rowmint.errors import InvalidFieldError, UntrustedModelError
from rowmint.names import ModelName, ModelVersionName

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"

# Bundles made here have some 1,500 bytes; anything longer is refused without parsing.
_MAX_BUNDLE = 64 * 1024
_NOT_HEX = re.compile(r"[^0-9a-f]")
_PUBLIC_KEY = re.compile(r"-----BEGIN PUBLIC KEY-----\s.*?\s-----END PUBLIC KEY-----", re.DOTALL)


@dataclass(frozen=True)
class Statement:
    """The signed statement: these files are a version of this model.

    It does not contain the version number, which is assigned only on publishing.

    Attributes:
        model: The model.
        manifest_digest: SHA-256 of manifest.json, 32 bytes.
        weights_digest: SHA-256 of weights.safetensors, 32 bytes.
    """

    model: ModelName
    manifest_digest: bytes
    weights_digest: bytes

    def to_json(self) -> dict[str, Any]:
        """Return the in-toto statement as JSON values."""
        files = {"manifest.json": self.manifest_digest, "weights.safetensors": self.weights_digest}
        return {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": str(self.model), "digest": {"sha256": self.manifest_digest.hex()}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "serialization": {
                    "method": "files",
                    "hash_type": "sha256",
                    "allow_symlinks": False,
                    "ignore_paths": [],
                },
                "resources": [
                    {"name": name, "algorithm": "sha256", "digest": digest.hex()} for name, digest in files.items()
                ],
            },
        }

    def matches(self, body: Any) -> bool:
        """Return whether an in-toto statement states this; other fields of its predicate are ignored."""
        own = self.to_json()
        try:
            return all(body[part] == own[part] for part in ("_type", "subject", "predicateType")) and all(
                body["predicate"][part] == value for part, value in own["predicate"].items()
            )
        except (KeyError, TypeError):
            return False


@dataclass(frozen=True)
class Signature:
    """A signature of a version.

    Attributes:
        key_id: Id of the key that is claimed to have made it; see `key_id`.
        bundle_json: The Sigstore bundle, JSON.
    """

    key_id: str
    bundle_json: str


def generate_signing_key() -> tuple[bytes, bytes]:
    """Return a new key: the private key (PKCS #8) and the public key (SubjectPublicKeyInfo), both PEM.

    The private key is not encrypted: the caller must protect it.
    """
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - only needed for signing
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - likewise

    private = Ed25519PrivateKey.generate()
    return (
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    )


def key_id(public_pem: bytes) -> str:
    """Return the id of a public key: the SHA-256 of its DER form (SubjectPublicKeyInfo), 64 hex digits.

    Args:
        public_pem: The key, PEM.

    Raises:
        InvalidFieldError: It is not an Ed25519 public key.
    """
    return _id_of(_public_key(public_pem))


class SigningKey:
    """A private key that signs versions. Immutable, thread-safe; its representation does not reveal it.

    Attributes:
        id: Id of its public key; see `key_id`.
    """

    def __init__(self, key: "Ed25519PrivateKey") -> None:
        self._key = key
        self.id = _id_of(key.public_key())

    def __repr__(self) -> str:
        return f"SigningKey({self.id})"

    @classmethod
    def parse(cls, private_pem: bytes) -> "SigningKey":
        """Parse the content of a key file.

        Args:
            private_pem: The key, PKCS #8, PEM, not encrypted.

        Raises:
            InvalidFieldError: It is not such a key; the error does not quote the content.
        """
        from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - only needed for signing
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - likewise
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - likewise

        try:
            key = load_pem_private_key(private_pem, None)
        except TypeError:
            raise InvalidFieldError("signing key", "is encrypted; store it without a password") from None
        except (ValueError, UnsupportedAlgorithm):
            raise InvalidFieldError(
                "signing key", "is not a private key in PEM; create one with `rowmint keys signing FOLDER`"
            ) from None
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidFieldError("signing key", "is not Ed25519; create one with `rowmint keys signing FOLDER`")
        return cls(key)

    def sign(self, statement: Statement) -> Signature:
        """Return the signature of a statement; deterministic."""
        import rfc8785  # noqa: PLC0415 - only needed for signing; not installed where signatures are only verified

        payload = rfc8785.dumps(statement.to_json())
        envelope: dict[str, Any] = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"keyid": self.id, "sig": base64.b64encode(self._key.sign(pae(payload))).decode()}],
        }
        bundle: dict[str, Any] = {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": self.id}, "tlogEntries": []},
            "dsseEnvelope": envelope,
        }
        return Signature(self.id, rfc8785.dumps(bundle).decode())


class TrustedKeys:
    """Public keys whose signatures are trusted. Immutable, thread-safe.

    Attributes:
        ids: Their ids; see `key_id`.
    """

    def __init__(self, keys: Mapping[str, "Ed25519PublicKey"]) -> None:
        self._keys = dict(keys)
        self.ids = frozenset(self._keys)

    @classmethod
    def parse(cls, text: bytes) -> "TrustedKeys":
        """Parse the content of a file of trusted keys. With an empty file no signature is trusted.

        Args:
            text: Public keys, PEM, one after the other; lines between them are blank or begin with ``#``.

        Raises:
            InvalidFieldError: There is anything else in it, or a key is not Ed25519.
        """
        try:
            given = text.decode()
        except UnicodeDecodeError:
            raise InvalidFieldError("trusted keys", "must be public keys in PEM") from None
        if "PRIVATE KEY-----" in given:
            raise InvalidFieldError(
                "trusted keys", "contain a private key, which belongs to the trainer alone; use its public key instead"
            )
        for line in _PUBLIC_KEY.sub("", given).splitlines():
            if line.strip() and not line.startswith("#"):
                raise InvalidFieldError(
                    "trusted keys", "must contain only complete public keys in PEM, blank lines and lines with '#'"
                )
        keys = [_public_key(found.encode()) for found in _PUBLIC_KEY.findall(given)]
        return cls({_id_of(key): key for key in keys})

    def require(self, statement: Statement, signatures: Iterable[Signature], name: ModelVersionName) -> str:
        """Return the id of a trusted key that has signed a statement.

        Args:
            statement: The statement, made from the fetched files and the requested name.
            signatures: Signatures in the registry; untrusted input.
            name: The version, for the error.

        Raises:
            UntrustedModelError: No trusted key has signed it; the message says which signatures exist and what to do.
        """
        others, broken = [], []
        for signature in signatures:
            if signature.key_id not in self.ids:
                others.append(signature.key_id)
            elif self._has_signed(statement, signature):
                return signature.key_id
            else:
                broken.append(signature.key_id)
        if broken:
            cause = (
                f"the signature of the trusted key {_brief(broken)} does not match these files under this name, so the"
                " registry or the object store was tampered with; restore them from a backup, or delete the version"
            )
        elif others:
            cause = (
                f"it is signed only by {_brief(others)}; sign it again (`rowmint models sign`), or add that public key"
                " to the trusted keys"
            )
        else:
            cause = "it is not signed; sign it (`rowmint models sign`) if you trust its origin"
        raise UntrustedModelError(
            f"{name} has no valid signature of a trusted key: {cause}", metadata={"name": str(name)}
        )

    def _has_signed(self, statement: Statement, signature: Signature) -> bool:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - only needed for verification

        if len(signature.bundle_json) > _MAX_BUNDLE:
            return False
        try:
            body = json.loads(signature.bundle_json)
            envelope = body["dsseEnvelope"]
            kinds = body["mediaType"], envelope["payloadType"], body["verificationMaterial"]["publicKey"]["hint"]
            if kinds != (BUNDLE_TYPE, PAYLOAD_TYPE, signature.key_id):
                return False
            (given,) = envelope["signatures"]
            payload = base64.b64decode(envelope["payload"], validate=True)
            self._keys[signature.key_id].verify(base64.b64decode(given["sig"], validate=True), pae(payload))
            return statement.matches(json.loads(payload))
        except (KeyError, TypeError, ValueError, RecursionError, InvalidSignature):
            return False


def pae(payload: bytes) -> bytes:
    """Return the signed bytes of a payload of type `PAYLOAD_TYPE` (DSSE v1, pre-authentication encoding)."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _public_key(public_pem: bytes) -> "Ed25519PublicKey":
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - only needed to parse keys
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - likewise
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415 - likewise

    try:
        key = load_pem_public_key(public_pem)
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidFieldError("public key", "is not a public key in PEM") from None
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidFieldError("public key", "is not Ed25519")
    return key


def _id_of(key: "Ed25519PublicKey") -> str:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - only needed to parse keys

    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _brief(ids: list[str]) -> str:
    """Return key ids, shortened and sanitised for a message, as those in the registry are untrusted."""
    shown = ", ".join(_NOT_HEX.sub("?", one[:16]) + "..." for one in ids[:3])
    return shown if len(ids) <= 3 else f"{shown} and {len(ids) - 3} more"
