"""Signatures: what is signed, by the letter, and that nothing else passes for it."""

import base64
import hashlib
import json
import re
import traceback
from dataclasses import replace

import pytest
import rfc8785
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from rowmint.errors import InvalidFieldError, UntrustedModelError
from rowmint.names import ModelName, ModelVersionName
from rowmint.security.signing import Signature, SigningKey, Statement, TrustedKeys, generate_signing_key, key_id

NAME = ModelVersionName("p", "m", 3)
STATEMENT = Statement(NAME.parent, b"m" * 32, b"w" * 32)
SPKI_ED25519 = bytes.fromhex("302a300506032b6570032100")  # RFC 8410: all of the DER form but the key


def private_of(seed):
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def private_pem(key, encryption=None):
    encryption = serialization.NoEncryption() if encryption is None else encryption
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def public_pem(key):
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def signing_key(seed):
    return SigningKey.parse(private_pem(private_of(seed)))


def trusting(*seeds):
    return TrustedKeys.parse(b"".join(public_pem(private_of(seed)) for seed in seeds))


def envelope(seed, payload, **changed):
    """A bundle that `seed` signs by the letter, whatever is in it; `changed` says what is other than usual."""
    own = signing_key(seed).id
    kind = changed.get("payloadType", "application/vnd.in-toto+json")
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    one = {"keyid": own, "sig": base64.b64encode(private_of(seed).sign(signed)).decode()}
    return {
        "mediaType": changed.get("mediaType", "application/vnd.dev.sigstore.bundle.v0.3+json"),
        "verificationMaterial": {"publicKey": {"hint": changed.get("hint", own)}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": changed.get("signatures", [one]),
        },
    }


def signed_by(seed, body, **changed):
    payload = body if isinstance(body, bytes) else rfc8785.dumps(body)
    return Signature(signing_key(seed).id, json.dumps(envelope(seed, payload, **changed)))


def refused(keys, *signatures, statement=STATEMENT):
    with pytest.raises(UntrustedModelError) as caught:
        keys.require(statement, signatures, NAME)
    assert caught.value.metadata == {"name": str(NAME)}
    return caught.value.message


# keys


def test_a_new_key_is_ed25519_and_signs_what_its_public_half_verifies():
    private, public = generate_signing_key()
    assert (private.splitlines()[0], public.splitlines()[0]) == (
        b"-----BEGIN PRIVATE KEY-----",
        b"-----BEGIN PUBLIC KEY-----",
    )
    key = SigningKey.parse(private)
    assert key.id == key_id(public)
    assert TrustedKeys.parse(public).require(STATEMENT, [key.sign(STATEMENT)], NAME) == key.id
    assert generate_signing_key()[0] != private


def test_a_key_is_named_by_the_digest_of_its_der_form():
    raw = private_of(1).public_key().public_bytes_raw()
    expected = hashlib.sha256(SPKI_ED25519 + raw).hexdigest()
    assert key_id(public_pem(private_of(1))) == expected
    assert signing_key(1).id == expected
    assert trusting(1).ids == {expected}


def test_a_private_key_is_not_shown():
    private = private_pem(private_of(1))
    key = SigningKey.parse(private)
    assert (repr(key), str(key)) == (f"SigningKey({key.id})", f"SigningKey({key.id})")


@pytest.mark.parametrize(
    ("pem", "words"),
    [
        (b"", "is not a private key in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "is not a private key in PEM"),
        (public_pem(private_of(1)), "is not a private key in PEM"),
        (private_pem(private_of(1), serialization.BestAvailableEncryption(b"secret")), "without a password"),
        (private_pem(Ed448PrivateKey.generate()), "is not Ed25519"),
    ],
)
def test_what_is_no_signing_key_is_refused_unquoted(pem, words):
    with pytest.raises(InvalidFieldError, match=words) as caught:
        SigningKey.parse(pem)
    assert "c2VjcmV0" not in "".join(traceback.format_exception(caught.value))
    assert "secret" not in str(caught.value)


def test_trusted_keys_stand_one_after_the_other_with_remarks_between():
    text = b"# of 2026\n\n" + public_pem(private_of(1)) + b"  \n# of 2027\n" + public_pem(private_of(2)).rstrip()
    assert TrustedKeys.parse(text).ids == {signing_key(1).id, signing_key(2).id}


@pytest.mark.parametrize("text", [b"", b"\n \n", b"# no keys any more\n"])
def test_a_file_without_keys_trusts_no_signature(text):
    keys = TrustedKeys.parse(text)
    assert keys.ids == frozenset()
    refused(keys, signing_key(1).sign(STATEMENT))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (private_pem(private_of(1)), "private key"),
        (public_pem(private_of(1)) + private_pem(private_of(1)), "private key"),
        (public_pem(private_of(1))[:-10], "must contain only complete public keys"),
        (public_pem(private_of(1)) + b"x", "must contain only complete public keys"),
        (b'{"keys": []}', "must contain only complete public keys"),
        (b"\xff\xfe", "must be public keys"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "is not a public key in PEM"),
        (public_pem(private_of(1)) + public_pem(Ed448PrivateKey.generate()), "is not Ed25519"),
    ],
)
def test_a_file_with_anything_else_is_refused_as_a_whole(text, words):
    with pytest.raises(InvalidFieldError, match=words):
        TrustedKeys.parse(text)


# what is signed


def test_the_statement_is_laid_out_as_in_toto_and_openssf_say():
    bundle = json.loads(signing_key(1).sign(STATEMENT).bundle_json)
    assert json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"])) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "projects/p/models/m", "digest": {"sha256": "6d" * 32}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": [
                {"name": "manifest.json", "algorithm": "sha256", "digest": "6d" * 32},
                {"name": "weights.safetensors", "algorithm": "sha256", "digest": "77" * 32},
            ],
        },
    }


def test_the_bundle_verifies_by_the_letter_of_dsse_and_sigstore():
    signature = signing_key(1).sign(STATEMENT)
    bundle = json.loads(signature.bundle_json)
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True)
    (one,) = bundle["dsseEnvelope"]["signatures"]
    raw = private_of(1).public_key().public_bytes_raw()
    Ed25519PublicKey.from_public_bytes(raw).verify(
        base64.b64decode(one["sig"], validate=True),
        b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload),
    )
    assert bundle == envelope(1, payload)
    assert (signature.key_id, one["keyid"]) == (signing_key(1).id, signing_key(1).id)


def test_signing_twice_gives_the_same_bytes():
    first = signing_key(1).sign(STATEMENT)
    assert signing_key(1).sign(STATEMENT) == first
    assert first.bundle_json.encode() == rfc8785.dumps(json.loads(first.bundle_json))


# what passes


def test_one_trusted_signature_is_enough_whatever_stands_beside_it():
    good = signing_key(2).sign(STATEMENT)
    other = signing_key(2).sign(replace(STATEMENT, weights_digest=bytes(32)))
    beside = (signing_key(1).sign(STATEMENT), Signature(signing_key(3).id, "{"), other, Signature("x", ""))
    assert trusting(2, 3).require(STATEMENT, [*beside, good], NAME) == signing_key(2).id
    assert trusting(1, 3).require(STATEMENT, [*beside, good], NAME) == signing_key(1).id


def test_what_else_a_predicate_says_does_not_matter():
    body = STATEMENT.to_json()
    body["predicate"]["card"] = "model.md"
    assert trusting(1).require(STATEMENT, [signed_by(1, body)], NAME) == signing_key(1).id


# what does not


@pytest.mark.parametrize(
    "other",
    [
        replace(STATEMENT, model=ModelName("p", "n")),
        replace(STATEMENT, model=ModelName("q", "m")),
        replace(STATEMENT, manifest_digest=bytes(32)),
        replace(STATEMENT, weights_digest=bytes(32)),
        replace(STATEMENT, manifest_digest=b"w" * 32, weights_digest=b"m" * 32),
    ],
)
def test_a_signature_of_other_files_or_another_name_is_refused(other):
    reported = refused(trusting(1), signing_key(1).sign(other))
    assert "the registry or the object store was tampered with" in reported
    assert trusting(1).require(other, [signing_key(1).sign(other)], NAME) == signing_key(1).id


def altered(**parts):
    return {**STATEMENT.to_json(), **parts}


def altered_predicate(**parts):
    return altered(predicate={**STATEMENT.to_json()["predicate"], **parts})


SUBJECT = STATEMENT.to_json()["subject"][0]
RESOURCES = STATEMENT.to_json()["predicate"]["resources"]


@pytest.mark.parametrize(
    "body",
    [
        altered(_type="https://in-toto.io/Statement/v0.1"),
        altered(predicateType="https://slsa.dev/provenance/v1"),
        altered(subject=[]),
        altered(subject=[SUBJECT, {"name": "projects/p/models/n", "digest": {"sha256": "00" * 32}}]),
        altered(subject=[{**SUBJECT, "digest": {"sha512": "6d" * 32}}]),
        altered(predicate=None),
        altered_predicate(resources=RESOURCES[:1]),
        altered_predicate(resources=RESOURCES[::-1]),
        altered_predicate(resources=[*RESOURCES, {"name": "x", "algorithm": "sha256", "digest": "00" * 32}]),
        altered_predicate(resources=[{**one, "algorithm": "md5"} for one in RESOURCES]),
        altered_predicate(serialization={"method": "shards"}),
        {"predicate": {}},
        [],
        b"",
        b"no JSON",
        b"[" * 100_000,
    ],
)
def test_another_statement_by_a_trusted_key_is_refused(body):
    refused(trusting(1), signed_by(1, body))


@pytest.mark.parametrize(
    "changed",
    [
        {"payloadType": "application/vnd.in-toto"},
        {"payloadType": ""},
        {"mediaType": "application/vnd.dev.sigstore.bundle.v0.2+json"},
        {"hint": "0" * 64},
        {"signatures": []},
    ],
)
def test_a_bundle_of_another_kind_by_a_trusted_key_is_refused(changed):
    refused(trusting(1), signed_by(1, STATEMENT.to_json(), **changed))


def test_a_bundle_with_two_signatures_is_refused():
    body = json.loads(signing_key(1).sign(STATEMENT).bundle_json)
    body["dsseEnvelope"]["signatures"] *= 2
    refused(trusting(1), Signature(signing_key(1).id, json.dumps(body)))


@pytest.mark.parametrize("part", ["payload", "sig"])
def test_no_flipped_bit_passes(part):
    keys, good = trusting(1), json.loads(signing_key(1).sign(STATEMENT).bundle_json)
    place = good["dsseEnvelope"] if part == "payload" else good["dsseEnvelope"]["signatures"][0]
    data = base64.b64decode(place[part])
    passed = []
    for position in range(8 * len(data)):
        if part == "payload" and position % 8 != position // 8 % 8:
            continue  # one bit of each byte: a signature is over all of them
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        place[part] = base64.b64encode(flipped).decode()
        try:
            keys.require(STATEMENT, [Signature(signing_key(1).id, json.dumps(good))], NAME)
        except UntrustedModelError:
            continue
        passed.append(position)
    assert passed == []


def test_another_key_does_not_pass_for_a_trusted_one_whichever_name_it_gives_itself():
    payload = rfc8785.dumps(STATEMENT.to_json())
    trusted = signing_key(1).id
    for row_says in (trusted, signing_key(2).id):
        for hint in (trusted, signing_key(2).id):
            forged = json.dumps(envelope(2, payload, hint=hint))
            refused(trusting(1), Signature(row_says, forged))


def test_a_signature_kept_under_another_trusted_keys_name_is_refused():
    signature = signing_key(2).sign(STATEMENT)
    refused(trusting(1, 2), replace(signature, key_id=signing_key(1).id))


@pytest.mark.parametrize(
    "bundle",
    [
        "",
        "{",
        "null",
        "7",
        '"text"',
        "[]",
        "{}",
        '{"dsseEnvelope": {"payloadType": 1, "signatures": 5}, "mediaType": 1, "verificationMaterial": []}',
        "[" * 60_000,
        '{"a":' * 10_000 + "1" + "}" * 10_000,
    ],
)
def test_what_is_no_bundle_is_refused(bundle):
    refused(trusting(1), Signature(signing_key(1).id, bundle))


@pytest.mark.parametrize("place", ["payload", "sig"])
@pytest.mark.parametrize("value", [None, 1, [], "", "*", "AAA", "AAAA AAAA", "ä"])
def test_a_bundle_whose_bytes_are_none_is_refused(place, value):
    body = json.loads(signing_key(1).sign(STATEMENT).bundle_json)
    (body["dsseEnvelope"] if place == "payload" else body["dsseEnvelope"]["signatures"][0])[place] = value
    refused(trusting(1), Signature(signing_key(1).id, json.dumps(body)))


def test_a_bundle_that_is_far_too_long_is_refused_unread():
    signature = signing_key(1).sign(STATEMENT)
    keys = trusting(1)
    for length, passes in ((64 * 1024, True), (64 * 1024 + 1, False)):
        padded = Signature(signature.key_id, signature.bundle_json.ljust(length))
        if passes:
            assert keys.require(STATEMENT, [padded], NAME) == signature.key_id
        else:
            refused(keys, padded)


# what is said


def test_the_error_says_what_there_is_and_what_to_do():
    good = signing_key(1).sign(STATEMENT)
    start = f"{NAME} has no valid signature of a trusted key: "
    assert refused(trusting(2)) == (f"{start}it is not signed; sign it (`rowmint models sign`) if you trust its origin")
    assert refused(trusting(2), good) == (
        f"{start}it is signed only by {good.key_id[:16]}...; sign it again (`rowmint models sign`), or add that public"
        " key to the trusted keys"
    )
    assert refused(trusting(1), good, statement=replace(STATEMENT, weights_digest=bytes(32))) == (
        f"{start}the signature of the trusted key {good.key_id[:16]}... does not match these files under this name, so"
        " the registry or the object store was tampered with; restore them from a backup, or delete the version"
    )


def test_the_error_shows_few_names_and_no_text_that_a_registry_may_hold():
    reported = refused(trusting(1), *[Signature(f"\x1b[2J\nab{index}", "") for index in range(5)])
    assert re.findall(r"signed only by (.*?);", reported) == ["??2??ab0..., ??2??ab1..., ??2??ab2... and 2 more"]
