"""Files of small golden models, and how one value, array or byte of them is changed and signed again."""

import copy
import hashlib
import itertools
import json
import struct
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import rfc8785
import safetensors.numpy
from numpy.typing import NDArray

from rowmint.artifact import write_model
from rowmint.schema import TableSchema
from tests.golden.make import FORMS, FORMS_SCHEMA, SCHEMA, codecs, forms_codecs, generator
from tests.hostile.confined import note

KERNELS = ("numpy", "onnxruntime")
ROWS = 16
_turn = itertools.count()
KEPT = ("id", "city", "flag", "price", "ratio", "seen", "tier", "badge")
"""Columns of the golden models that the small ones keep: one of each way to be stored."""
KEPT_FORMS = ("row", "flag", "price", "score", "instant", "clock", "serial")

Json = Any
Array = NDArray[Any]
Path = tuple[str | int, ...]


@cache
def small(family: str) -> tuple[bytes, bytes]:
    """Return the files of a golden model of fewer columns; `FORMS` is that whose columns have forms."""
    whole, names = (FORMS_SCHEMA, KEPT_FORMS) if family == FORMS else (SCHEMA, KEPT)
    kept = [whole.names.index(name) for name in names]
    schema = TableSchema(tuple(whole.columns[index] for index in kept), names[0])
    own = forms_codecs() if family == FORMS else codecs()
    base = "independent" if family == FORMS else family
    made = write_model(generator(base, schema, [own[index] for index in kept]), {"licence": "none", "rows": [1, 2.5]})
    return made.manifest, made.weights


def manifest_of(family: str) -> Json:
    return json.loads(small(family)[0])


def signed(body: Json, weights: bytes) -> bytes:
    """Return a manifest whose digests are right, as far as there can be any."""
    body = copy.deepcopy(body)
    section = body["generator"]
    if isinstance(section.get("weights"), dict):
        section["weights"] |= {"sha256": hashlib.sha256(weights).hexdigest(), "size": len(weights)}
    return sealed(body)


def sealed(body: Json) -> bytes:
    """Return a manifest with the right model digest; what is said of the weights stays as it is."""
    try:
        body["model_digest"] = hashlib.sha256(rfc8785.dumps(body["generator"])).hexdigest()
        return rfc8785.dumps(body)
    except ValueError:  # numbers that canonical JSON does not have
        return json.dumps(body).encode()


def changed(family: str, path: Path, value: Json) -> Json:
    """Return a manifest with another value at a path, or without it where the value is `MISSING`."""
    body = manifest_of(family)
    *above, last = path
    place = body
    for step in above:
        place = place[step]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return body


MISSING = object()


def paths(body: Json, above: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Yield everything in a JSON value, each with its path."""
    entries = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    for step, value in entries:
        yield (*above, step), value
        yield from paths(value, (*above, step))


LONG = "é" * 50_000
VALUES: tuple[Json, ...] = (
    None,
    True,
    [],
    {},
    [None],
    {"type": "date", "text": "2024-02-29"},
    -1,
    0,
    1.5,
    2**31,
    2**53 - 1,
    2**64,
    float("nan"),
    float("-inf"),
    "",
    "\0",
    "\ud800",
    "NaN",
    "-1",
    "1e999999999",
    "9" * 30,
    "0001-01-01",
    "../../../etc/passwd",
    "%99999d%",
    LONG,
)


def changes(family: str, below: Path = (), values: Sequence[Json] = VALUES) -> Iterator[tuple[Path, Json]]:
    """Yield the paths of a manifest at or below `below`, each with every other value and without any.

    Of a list of categories only the first is taken.
    """
    body = manifest_of(family)
    for path, now in paths(body):
        if path[: len(below)] != below or (path[-2:-1] == ("categories",) and path[-1] != 0):
            continue
        for value in (MISSING, *values):
            if value is MISSING or json.dumps(value) != json.dumps(now):
                note(f"{family}: {path} is {value!r:.100}")
                yield path, value


def tensors(family: str) -> dict[str, Array]:
    return dict(sorted(safetensors.numpy.load(small(family)[1]).items()))


def own_tensors(family: str) -> dict[str, Array]:
    """Return the arrays of a family; those of the codecs, which all have alike, with the independent one's."""
    codecs_too = family == "independent"
    return {name: array for name, array in tensors(family).items() if codecs_too or not name.startswith("codec.")}


def with_weights(family: str, weights: bytes) -> tuple[bytes, bytes]:
    """Return files with other weights, signed."""
    return signed(manifest_of(family), weights), weights


def with_tensors(family: str, **arrays: Array | None) -> tuple[bytes, bytes]:
    """Return files with other arrays, signed; None stands for an array left out, and ``__`` for a dot in a name."""
    found = tensors(family) | {name.replace("__", "."): array for name, array in arrays.items()}
    kept = {name: np.ascontiguousarray(array) for name, array in found.items() if array is not None}
    return with_weights(family, safetensors.numpy.save(kept))


def header_of(weights: bytes) -> tuple[Json, bytes]:
    """Return the header and the data of a safetensors file."""
    (size,) = struct.unpack_from("<Q", weights)
    return json.loads(weights[8 : 8 + size]), weights[8 + size :]


def file_of(header: Json, data: bytes, size: int | None = None) -> bytes:
    """Return a safetensors file; `size` is what it says its header's size is, None for its true size."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data
