"""Hostile manifests: values, digests, versions, columns and cells that are not those of the model."""

import hashlib
import itertools
import json

from rowmint.artifact import read_manifest
from rowmint.schema import ColumnKind, DataType
from tests.golden.make import FAMILIES
from tests.hostile.confined import note
from tests.hostile.model_files import KERNELS, LONG, MISSING, Path, changed, changes, manifest_of, sealed, small
from tests.hostile.model_reading import Refused, Sound, raised, read, refused, sound
from tests.hostile.uploads import equal


def every_value_under_the_old_digests() -> None:
    """What the model digest covers is refused by it, and all else by the manifest's own."""
    digest = hashlib.sha256(small("ctgan")[0]).digest()
    covered = open_ = 0
    for path, value in changes("ctgan", values=(None, -1, [], "", "NaN", LONG)):
        data = json.dumps(changed("ctgan", path, value)).encode()
        with raised():
            read_manifest(data, digest)
        if path[0] in ("licence", "rows"):
            open_ += 1
            equal("exact-i8", read_manifest(data)["generator"]["arithmetic"])
            continue
        covered += 1
        with raised():
            read_manifest(data)
    equal((True, True), (covered > 500, open_ > 20))


STRICT: tuple[Path, ...] = (
    ("format",),
    ("generator",),
    *(("generator", part) for part in ("algorithm", "arithmetic", "codecs", "family", "grid", "schema", "weights")),
    ("generator", "weights", "sha256"),
    ("generator", "weights", "size"),
    ("generator", "schema", "columns"),
)
"""Paths of which no other value makes a model."""


def every_value_signed(family: str, below: Path) -> None:
    """Each value is refused, or makes another sound model."""
    weights = small(family)[1]
    outcomes: list[type] = []
    for path, value in changes(family, below):
        body = changed(family, path, value)
        data = sealed(body) if isinstance(body.get("generator"), dict) else json.dumps(body).encode()
        found = read(data, weights, kernels=KERNELS[len(outcomes) % 2 :][:1])
        if path in STRICT and isinstance(found, Sound):
            raise AssertionError(f"{path} may be {value!r:.100}")
        outcomes.append(type(found))
    equal(True, outcomes.count(Refused) > len(outcomes) // 2)


def bytes_that_are_no_manifest() -> None:
    manifest = small("tvae")[0]
    for data in (
        b"",
        b"\xef\xbb\xbf" + manifest[:-1],
        manifest + b"{}",
        manifest.decode().encode("utf-16")[:-2],
        b"\xff" * 1000,
        b"[" * 1_000_000,
        b"[" * 500_000 + b"]" * 500_000,
        b'{"a":' * 500_000,
        b'{"generator":' * 500_000 + b"1" + b"}" * 500_000,
        b"9" * 1_000_000,
        b'"generator"',
        b"[]",
        b"null",
        b"0",
        b'{"generator":null,"format":1}',
        b'{"generator":[["algorithm",2]],"format":1}',
        b'{"generator":"algorithm","format":1}',
        b"\x80\x04\x95\x1c\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x05_exit\x94\x93\x94K\x03\x85\x94R\x94.",
    ):
        note(f"{data[:1000]!r}")
        refused(data, small("tvae")[1], "malformed")
    for cut in range(0, len(manifest), 5):
        refused(manifest[:cut], small("tvae")[1], "malformed")


def numbers_that_no_manifest_has() -> None:
    manifest, weights = small("ctgan")
    for number in (b"NaN", b"Infinity", b"-Infinity", b"1e400", b"-1e400", b"1" + b"0" * 5000, b"9007199254740993"):
        for part in (b'"hidden_layers":2', b'"grid":4096', b'"head":8', b'"algorithm":2', b'"decimals":0'):
            equal(True, part in manifest)
            key, _, _value = part.partition(b":")
            refused(manifest.replace(part, key + b":" + number, 1), weights, "malformed")


def keys_given_twice() -> None:
    manifest, weights = small("ctgan")
    for part in (b'"format":1', b'"hidden_layers":2', b'"family":"ctgan"', b'"primary_key":"id"', b'"licence":"none"'):
        equal(True, part in manifest)
        refused(manifest.replace(part, part + b"," + part, 1), weights, "has a key twice")
        key, _, _value = part.partition(b":")
        refused(manifest.replace(part, key + b":7," + part, 1), weights, "has a key twice")


def other_versions() -> None:
    weights = small("tvae")[1]
    for path in (("format",), ("generator", "algorithm"), ("generator", "arithmetic")):
        for value in (0, 3, 2**53 - 1, -1, "1", "2", "exact-i16", "float32", None, [], {}, [1], "../exact-i8", LONG):
            refused(sealed(changed("tvae", path, value)), weights, "update the service")
    for value in ("gan", "CTGAN", "rowmint.synthesizer.latent.tvae", "../tvae", None, 1, ["tvae"], {"tvae": 1}):
        refused(sealed(changed("tvae", ("generator", "family"), value)), weights, "this version knows")


def wrong_digests() -> None:
    manifest, weights = small("independent")
    body = manifest_of("independent")
    right = body["model_digest"]
    for digest in (
        "",
        right[:-1],
        right.upper(),
        right[::-1],
        right + "00",
        "../" + right,
        None,
        0,
        [right],
        {right: 1},
    ):
        refused(json.dumps({**body, "model_digest": digest}).encode(), weights, "model digest it says")
    sha256 = body["generator"]["weights"]["sha256"]
    for value in ("", sha256[:-1], sha256.upper(), sha256[::-1], None, 0, [sha256], {}):
        refused(sealed(changed("independent", ("generator", "weights", "sha256"), value)), weights, "size or digest")
    for value in (0, -1, len(weights) + 1, str(len(weights)), None, 2**53 - 1, [len(weights)]):
        refused(sealed(changed("independent", ("generator", "weights", "size"), value)), weights, "size or digest")
    with raised("digest the registry says"):
        read_manifest(manifest, hashlib.sha256(manifest + b" ").digest())


def missing_parts() -> None:
    for family in FAMILIES:
        weights = small(family)[1]
        for part in ("format", "generator", "model_digest"):
            refused(json.dumps(changed(family, (part,), MISSING)).encode(), weights)
        needed = [part for part in manifest_of(family)["generator"] if (family, part) != ("independent", "network")]
        equal(True, len(needed) >= 7)
        for part in needed:
            refused(sealed(changed(family, ("generator", part), MISSING)), weights)


def columns_of_another_kind() -> None:
    """A column under another's kind, type or codec: what the codec makes must be what the column says."""
    columns = manifest_of("independent")["generator"]["schema"]["columns"]
    weights = small("independent")[1]
    for index, column in enumerate(columns):
        for kind, data_type in itertools.product(ColumnKind, DataType):
            if (kind, data_type) == (column["kind"], column["type"]):
                continue
            body = manifest_of("independent")
            body["generator"]["schema"]["columns"][index] |= {"kind": kind, "type": data_type}
            note(f"{column} as {kind} of {data_type}")
            found = read(sealed(body), weights)
            if kind != column["kind"] and {kind, column["kind"]} != {"numerical", "datetime"}:
                allowed = {kind, column["kind"]} == {"categorical", "boolean"}
                equal(True, allowed or isinstance(found, Refused))
        for other_index, other_column in enumerate(columns):
            body = manifest_of("independent")
            entries = body["generator"]["codecs"]
            entries[index], entries[other_index] = entries[other_index], entries[index]
            note(f"{column} by the codec of {other_column}")
            read(sealed(body), weights)


def cells_of_no_column() -> None:
    """Categories and bounds that are none of the column's, or beyond what can be stored of it."""
    weights = small("independent")[1]
    columns = manifest_of("independent")["generator"]["schema"]["columns"]
    texts = (
        "1e30",
        "1E-40",
        "1e-99999",
        "NaN",
        "sNaN",
        "Infinity",
        "-0",
        "9" * 40,
        "0001-01-01",
        "9999-12-31T23:59:59.999999",
    )
    cells = [
        *texts,
        *({"type": data_type, "text": text} for data_type in DataType for text in ("1", "true", "2024-02-29")),
    ]
    for index, column in enumerate(columns):
        for cell in cells:
            for name in ("minimum", "maximum", "categories"):
                if name != "categories" or name in column:
                    note(f"{name} of {column['name']}: {cell}")
                    place = ("generator", "schema", "columns", index, name, *([0] if name == "categories" else []))
                    read(sealed(changed("independent", place, cell)), weights)


def grids() -> None:
    weights = small("tvae")[1]
    for grid in (0, -1, 3, 4095, 1 << 20, 2**53 - 1, "4096", 4096.5, None, True):
        refused(sealed(changed("tvae", ("generator", "grid"), grid)), weights, "grid")
    for grid in (1, 2, 8, 8192):
        sound(sealed(changed("tvae", ("generator", "grid"), grid)), weights)
    body = changed("tvae", ("generator", "schema", "columns", 1, "categories", 0), LONG)
    refused(sealed(body), weights, "grid")
