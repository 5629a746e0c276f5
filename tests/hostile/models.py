"""Hostile models: manifests and weights of which somebody has changed anything, digests made right again included.

Each ends in `DataLossError` when it is read, or it is a sound model: whatever is drawn from it is what its schema says,
in every format, and the same with every kernel.
"""

import copy
import csv
import hashlib
import io
import itertools
import json
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import rfc8785
import safetensors.numpy
from numpy.typing import NDArray

from rowmint.artifact import Model, read_manifest, read_model, write_model
from rowmint.conditions import AnyOf, IsNull, Predicate, Range, Test, canonical
from rowmint.errors import DataLossError, RowmintError, RowRangeError
from rowmint.rng import StreamKey
from rowmint.rpc.converters import schema_to_proto
from rowmint.sampling.formats import RowFormat, TypedBatch, make_encoder
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import RowSource
from rowmint.schema import ColumnKind, ColumnSpec, DataType, TableSchema
from rowmint.schema.arrays import ColumnArray, is_coded
from rowmint.synthesizer import CompletionOptions, Kernel, choose_kernel
from tests.golden.make import FAMILIES, SCHEMA, codecs, generator, stored
from tests.hostile.confined import GROWTH, note
from tests.hostile.uploads import equal, mutants

KERNELS = ("numpy", "onnxruntime")
ROWS = 16
_KEY = StreamKey(bytes(32), bytes(32), 7)
_turn = itertools.count()
_KEPT = ("id", "city", "flag", "price", "ratio", "seen", "tier", "badge")
"""Columns of the golden models that the small ones keep: one of each way to be stored."""

Json = Any
Array = NDArray[Any]
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Refused:
    """What was said of a model that was refused."""

    message: str


@dataclass(frozen=True)
class Sound:
    """A model that was loaded, drawn from and found sound."""

    columns: int


@cache
def kernel(name: str) -> Kernel:
    return choose_kernel(name)


@cache
def small(family: str) -> tuple[bytes, bytes]:
    """Return the files of a golden model of fewer columns."""
    kept = [SCHEMA.names.index(name) for name in _KEPT]
    schema = TableSchema(tuple(SCHEMA.columns[index] for index in kept), "id")
    own = codecs()
    made = write_model(generator(family, schema, [own[index] for index in kept]), {"licence": "none", "rows": [1, 2.5]})
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


def read(manifest: bytes, weights: bytes, *, every: bool = False, kernels: Sequence[str] = KERNELS) -> Refused | Sound:
    """Read a model as the sampler does and draw from it. Any other error goes on.

    Args:
        manifest: Bytes of `manifest.json`.
        weights: Bytes of `weights.safetensors`.
        every: Whether every column is tested and completed, by real plans; else one, another one each time.
        kernels: Kernels that it is read with, and that must draw the same.
    """
    if b'"family":"independent"' in manifest:
        kernels = kernels[:1]  # it has no network
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            models = [read_model(manifest, weights, kernel(name)) for name in kernels]
        except DataLossError as error:
            if not 0 < len(error.message.encode()) < 2000:
                raise AssertionError(f"{error.message[:2000]!r}") from error
            return Refused(error.message)
        first, *others = (first_rows(model) for model in models)
        equal([first] * len(others), others)
        schema_to_proto(models[0].schema)
        columns = models[0].schema.columns
        turn = next(_turn)
        for column in columns if every else [columns[turn % len(columns)]]:
            conditioned(models[turn % len(models)], column)
            if every:
                planned(models[turn % len(models)], column)
    return Sound(len(columns))


def first_rows(model: Model) -> dict[RowFormat, Any]:
    """Return the first rows in every format, checked; nothing where ids are fewer than rows."""
    plan = compile_plan(model.digest, model.synthesizer, ())
    try:
        block = RowSource(model, plan, 3, model.schema.names).block(0, min(ROWS, model.grid))
    except RowRangeError:
        return {}
    return in_every_format(model, block.columns, block.rows)


def tests_of(column: ColumnSpec) -> Iterator[Test]:
    """Yield conditions that `column` may be asked for."""
    domain = column.domain
    if domain.categories:
        yield AnyOf((domain.categories[0], domain.categories[-1]))
    elif not is_coded(column):
        yield Range(minimum=domain.minimum, maximum=domain.maximum)
        yield AnyOf((domain.minimum, domain.maximum))
    yield IsNull()
    yield IsNull(null=False)


def planned(model: Model, column: ColumnSpec) -> None:
    """Draw rows by the plan that is compiled for a condition on `column`; nothing where none can be met."""
    try:
        conditions = canonical([Predicate(column.name, next(tests_of(column)))], model.schema)
    except RowmintError:
        return
    plan = compile_plan(model.digest, model.synthesizer, conditions)
    source = RowSource(model, plan, 3, model.schema.names)
    block = source.block(3, min(ROWS, plan.block_size, model.grid))
    if block.rows:
        in_every_format(model, block.columns, block.rows)


def conditioned(model: Model, column: ColumnSpec) -> None:
    """Draw rows with conditions on `column`, and complete one where it is known."""
    names = [name for name in model.schema.names if name not in model.identities]
    for test in tests_of(column):
        try:
            conditions = canonical([Predicate(column.name, test)], model.schema)
        except RowmintError:
            continue
        # What a plan's pilot and a block do, with fewer candidates.
        proposal = model.synthesizer.propose(conditions, names)
        found = proposal.candidates(_KEY.tile(0, 0), 64).first(ROWS)
        made = proposal.finish(found, _KEY.tile(0, 0)).columns
        if found.size and conditions and names:
            held = [bool(test.satisfied(made[test.column]).all()) for test in conditions]
            equal([True] * len(conditions), held)
    if column.name in names:
        domain = column.domain
        known = domain.categories[-1] if domain.categories else domain.maximum
        cells = {column.name: known} if known is not None or column.nullable else {}
        completer = model.synthesizer.completer(_KEY.tile(0, 0), CompletionOptions(64, 0.1))
        completed = completer.complete(cells, _KEY.tile(0, 1)).cells
        equal(set(names), set(completed))


def in_every_format(model: Model, columns: Mapping[str, ColumnArray], rows: int) -> dict[RowFormat, Any]:
    return {row_format: checked(model, columns, rows, row_format) for row_format in RowFormat}


def checked(model: Model, columns: Mapping[str, ColumnArray], rows: int, row_format: RowFormat) -> Any:
    """Return rows in a format, after reading them back."""
    encoder = make_encoder(row_format, model.schema, model.identities)
    batch = encoder.batch(columns, 0, rows)
    if isinstance(batch, TypedBatch):
        typed(model, batch)
        return batch
    data = encoder.header() + batch + encoder.end()
    names = list(model.schema.names)
    match row_format:
        case RowFormat.ARROW_STREAM:
            table = pa.ipc.open_stream(data).read_all()
            table.validate(full=True)
            equal((rows, names), (table.num_rows, table.column_names))
            for column in model.schema.columns:
                if table[column.name].null_count and not column.nullable:
                    raise AssertionError(f"a cell of {column.name!r} is missing")
        case RowFormat.CSV:
            header, *lines = csv.reader(io.StringIO(data.decode(), newline=""), strict=True)
            equal(names, header)
            equal([len(names)] * rows, [len(line) for line in lines])
        case _:
            objects = [json.loads(line, parse_constant=float.fromhex) for line in data.decode().split("\n")[:-1]]
            equal(rows, len(objects))
            for row in objects:
                equal(names, list(row))
                for column in model.schema.columns:
                    moment(column, row[column.name])
    return data


def moment(column: ColumnSpec, text: str | None) -> None:
    """Raise where a date or time is none of the years 1 to 9999."""
    if text is not None and column.data_type is DataType.DATE:
        date.fromisoformat(text)
    if text is not None and column.data_type is DataType.TIMESTAMP:
        datetime.fromisoformat(text)


def typed(model: Model, batch: TypedBatch) -> None:
    """Raise where a typed column is not as long as it must be, or an index lies outside the category list."""
    for column, cells in zip(model.schema.columns, batch.columns, strict=True):
        equal(batch.rows, len(cells.values))
        if cells.kind == "indices":
            top = max(1, len(column.domain.categories))
            equal([], [index for index in cells.values if not 0 <= index < top])


def refused(manifest: bytes, weights: bytes, words: str = "") -> None:
    """Read a model that must be refused; `words` must stand in the message."""
    found = read(manifest, weights)
    if not isinstance(found, Refused) or words not in found.message:
        raise AssertionError(f"not refused with {words!r}: {found}")


def sound(manifest: bytes, weights: bytes) -> None:
    """Read a model that must be sound."""
    found = read(manifest, weights)
    if not isinstance(found, Sound):
        raise AssertionError(f"refused: {found.message}")


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


@contextmanager
def raised(words: str = "") -> Iterator[None]:
    """Hold that `DataLossError` is raised within; `words` must stand in its message."""
    try:
        yield
    except DataLossError as error:
        if words not in error.message:
            raise AssertionError(f"{words!r} is not said, but {error.message!r}") from error
        return
    raise AssertionError("a damaged model was read")


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
    """Return a safetensors file; `size` is what it says its header's size is, None for the truth."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def weights_cut_at_every_byte() -> None:
    """Of the header; and of the data here and there."""
    for family, step in (("independent", 1), ("tvae", 23), ("ctgan", 23)):
        weights = small(family)[1]
        (size,) = struct.unpack_from("<Q", weights)
        for cut in (*range(0, size + 8, step), *range(size + 8, len(weights), 61), len(weights) - 1):
            note(f"{family} cut at {cut}")
            refused(*with_weights(family, weights[:cut]), "malformed")
        for more in (b"\0", b"\0" * 8, weights):
            refused(*with_weights(family, weights + more), "malformed")


def headers_that_lie() -> None:
    weights = small("tvae")[1]
    header, data = header_of(weights)
    size = len(weights) - len(data) - 8
    for said in (0, 1, 2, size - 1, size + 1, len(weights), 100_000_001, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1):
        note(f"a header of {said} bytes")
        refused(*with_weights("tvae", file_of(header, data, said)), "malformed")
    for text in (
        b"",
        b"{",
        b"null",
        b"[]",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"{}",
        b'{"__metadata__":3}',
        b'{"__metadata__":{"a":3}}',
        b'{"a":{"dtype":"F64","shape":[],"data_offsets":[0,8]}',
        b"\xff" * 100,
        b" " * 1000,
        b'{"a":' + b"9" * 100_000 + b"}",
    ):
        note(f"{text[:1000]!r}")
        refused(*with_weights("tvae", file_of(text, data)))
    twice = json.dumps(header).encode()
    read(*with_weights("tvae", file_of(twice[:-1] + b"," + twice[1:], data)))
    read(*with_weights("tvae", file_of({**header, "__metadata__": {"a": LONG}}, data)))


OFFSETS: tuple[tuple[int, int], ...] = (
    (0, 1), (1, 0), (0, -1), (-1, 0), (8, 8), (-8, -8), (0, 8), (2**40, 2**40), (2**63, 2**63), (2**64 - 8, 0),
)  # fmt: skip


def offsets_that_lie() -> None:
    """Overlaps, gaps, what runs backwards, what lies outside."""
    header, data = header_of(small("tvae")[1])
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        if start == stop:
            continue  # nothing lies anywhere
        for first, last in OFFSETS:
            lie = {**header, name: {**entry, "data_offsets": [start + first, stop + last]}}
            note(f"{name} {lie[name]}")
            refused(*with_weights("tvae", file_of(lie, data)), "malformed")
        for shape_of in (None, "0", [], [start], [start, stop, stop], [str(start), stop], [0.5, stop], [None, None]):
            lie = {**header, name: {**entry, "data_offsets": shape_of}}
            note(f"{name} {lie[name]}")
            refused(*with_weights("tvae", file_of(lie, data)), "malformed")
    names = [name for name, entry in header.items() if entry["dtype"] == "F64" and entry["shape"] == [2]]
    for one, two in itertools.permutations(names[:4], 2):
        lie = {**header, one: header[two]}
        refused(*with_weights("tvae", file_of(lie, data)), "malformed")
        read(*with_weights("tvae", file_of({**header, one: header[two], two: header[one]}, data)))


SHAPES: tuple[Json, ...] = (
    None, 3, "3", [], [0], [1], [-1], [2**31], [2**32, 2**32], [2**63], [2**64], [2**63, 0], [0, 2**63], [0] * 40,
    [1] * 70, [1.5], ["2"], [None], [[2]], [True],
)  # fmt: skip
DTYPES = (
    "BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64",
    "U64", "F4", "F128", "O", "", "f64", None, 3, ["F64"],
)  # fmt: skip


def shapes_and_types_that_lie() -> None:
    for family in FAMILIES:
        header, data = header_of(small(family)[1])
        for name, entry in header.items():
            if (family != "independent" and name.startswith("codec.")) or name.startswith(("codec.4", "codec.5")):
                continue
            count = len(entry["shape"])
            turned = [entry["shape"][::-1], [1, *entry["shape"]], [*entry["shape"], 1], [int(np.prod(entry["shape"]))]]
            for field, values in (("shape", (*SHAPES, *turned)), ("dtype", DTYPES)):
                for value in values:
                    if json.dumps(value) == json.dumps(entry[field]):
                        continue
                    note(f"{family} {name} {field} {value}")
                    found = read(*with_weights(family, file_of({**header, name: {**entry, field: value}}, data)))
                    if isinstance(found, Sound):
                        raise AssertionError(f"{name} of {count} dimensions may have the {field} {value}")


def arrays_of_another_type() -> None:
    """The same numbers in another type are not what was written."""
    for family in FAMILIES:
        for name, array in own_tensors(family).items():
            for dtype in (np.float64, np.float32, np.int64, np.uint64, np.int32, np.int8, np.uint8, np.bool_):
                if array.dtype != dtype:
                    note(f"{family} {name} as {dtype}")
                    with np.errstate(all="ignore"):
                        other = array.astype(dtype)
                    # Positions may be of 32 bits or of 64.
                    either = name in ("drivers.column", "drivers.slot") and dtype == np.int32
                    (sound if either else refused)(*with_tensors(family, **{name: other}))


def missing_and_extra_arrays() -> None:
    for family in FAMILIES:
        for name, array in own_tensors(family).items():
            note(f"{family} {name}")
            refused(*with_tensors(family, **{name: None}))
            refused(*with_tensors(family, **{name: array[..., None]}))
            longer = np.concatenate([array, array[:1]]) if len(array) else np.zeros(2, array.dtype)
            if name != "layer.0.weight" or family == "ctgan":  # of more noise it is another model
                refused(*with_tensors(family, **{name: longer}))
                shorter = array[:-1] if len(array) else np.ones((0, 1), array.dtype)
                refused(*with_tensors(family, **{name: shorter}))
        for name in ("codec.99.tail", "layer.9.weight", "slots.77", "drivers.x", "", "../../x", "x" * 10_000, "é\0"):
            sound(*with_tensors(family, **{name: np.zeros(3)}))
        refused(*with_weights(family, safetensors.numpy.save({})))
    for name in ("column", "slot", "weights"):
        refused(*with_tensors("ctgan", **{f"drivers__{name}": None}), f"lack 'drivers.{name}'")


EXTREMES: Mapping[str, tuple[float, ...]] = {
    "float64": (np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 5e-324, 1e-300, 1e19, -1e19, 1.7e308, -1.7e308),
    "float32": (np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1e-45, 1e28, 1e30, 3e38),
    "int8": (-128, -127, 0, 127),
    "int32": (-(2**31), 2**31 - 1, -(2**30), 2**30, 0),
    "int64": (-(2**63), 2**63 - 1, -1, 0, 3, 2**31, 2**40, 2**40 + 1, 2**32),
    "uint64": (0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1),
}


def extreme_numbers(family: str) -> None:
    """In one place, and in every place."""
    outcomes: list[type] = []
    for name, array in own_tensors(family).items():
        for value in EXTREMES[array.dtype.name] if array.size else ():
            for everywhere in (False, True):
                changed_array = array.copy()
                changed_array.reshape(-1)[slice(None) if everywhere else -1] = np.array(value, array.dtype)
                note(f"{family} {name} {value} {'everywhere' if everywhere else 'last'}")
                found = read(*with_tensors(family, **{name: changed_array}))
                outcomes.append(type(found))
                if not np.isfinite(value):
                    equal(Refused, type(found))
    equal(True, 0 < outcomes.count(Refused) < len(outcomes))


def sums_that_wrap() -> None:
    """Weights whose sum is right modulo 2**64."""
    for family, name in (("independent", "slots.1"), ("independent", "codec.1.tail"), ("ctgan", "drivers.weights")):
        weights = tensors(family)[name].copy()
        weights[:2] += np.array([2**63, 2**63], np.uint64)
        refused(*with_tensors(family, **{name: weights}), "sum to one")
        weights = np.zeros_like(weights)
        weights[-1] = 2**32
        sound(*with_tensors(family, **{name: weights}))
        weights[-1] -= 1
        refused(*with_tensors(family, **{name: weights}), "sum to one")
    weight, bias = tensors("tvae")["output.weight"], tensors("tvae")["output.bias"]
    room = 2**31 - 1 - 127 * np.abs(weight.astype(np.int64)).sum(axis=0)
    sound(*with_tensors("tvae", output__bias=room.astype(np.int32)))
    sound(*with_tensors("tvae", output__bias=(-room).astype(np.int32)))
    room[-1] += 1
    refused(*with_tensors("tvae", output__bias=room.astype(np.int32)), "may pass 2**31")
    refused(*with_tensors("tvae", output__bias=(-room).astype(np.int32)), "may pass 2**31")
    equal(bias.dtype, np.dtype(np.int32))


def slots_beyond_their_column() -> None:
    columns, slots = tensors("ctgan")["drivers.column"], tensors("ctgan")["drivers.slot"]
    for column, slot in ((0, 0), (3, 99), (8, 0), (-1, 0), (2**62, 0), (1, 10), (1, -1), (1, 2**62), (2, 3), (7, 0)):
        asked = columns.copy(), slots.copy()
        asked[0][-1], asked[1][-1] = column, slot
        note(f"column {column}, slot {slot}")
        refused(*with_tensors("ctgan", drivers__column=asked[0], drivers__slot=asked[1]), "condition vector")
    body = manifest_of("tvae")
    for head in (0, 7, 9, 12, 13, 2**40, -1):
        body["generator"]["codecs"][1]["head"] = head
        refused(signed(body, small("tvae")[1]), small("tvae")[1], "'city'")


def moments_outside_the_calendar() -> None:
    """`native` days or microseconds of the last bound; `first` those of the first."""
    weights = small("independent")[1]
    bounds = tensors("independent")["codec.5.bounds"]
    for place, minutes in ((0, -1.1e12), (1, 1e12), (1, 1e300), (0, -1e300)):
        moved = bounds.copy()
        moved[place] = minutes
        refused(*with_tensors("independent", codec__5__bounds=moved), "years 1 to 9999")
    for origin, step in (("9223372036854775807", "1"), ("0", "9223372036854775807"), ("-9223372036854775808", "1")):
        body = manifest_of("independent")
        body["generator"]["codecs"][5] |= {"origin": origin, "step": step}
        refused(sealed(body), weights, "years 1 to 9999")
    # The whole calendar, whose last microsecond is rounded up when it is told from the first.
    body = manifest_of("independent")
    body["generator"]["codecs"][5] |= {"origin": "-62135596800000000", "step": "1"}
    whole = np.array([0.0, float(253_402_300_799_999_999 + 62_135_596_800_000_000)])
    found = tensors("independent") | {
        "codec.5.bounds": whole, "codec.5.centers": whole[1:], "codec.5.widths": whole[1:],
    }  # fmt: skip
    data = safetensors.numpy.save(found)
    sound(signed(body, data), data)


def formats_and_zones() -> None:
    weights = small("independent")[1]
    path = ("generator", "schema", "columns", 5, "datetime_format")
    for value in ("\0", "%Y" * 2000, "%c" * 400, "x" * 1025):
        note(f"{value!r:.100}")
        refused(sealed(changed("independent", path, value)), weights, "datetime format")
    for value in ("%", "%Q", "%-", "%99999999d", "%s%n%t%%", "é", '"', "\n\r,", "%E", "%Oy", " "):
        note(f"{value!r}")
        sound(sealed(changed("independent", path, value)), weights)
    for value in ("../../etc/passwd", "a b", "\0", "x" * 65, "Zürich", "%s"):
        refused(sealed(changed("independent", (*path[:-1], "time_zone"), value)), weights)


def patterns() -> None:
    weights = small("independent")[1]
    index = len(_KEPT) - 1
    for pattern in ("", "[", "(a+)+$", "[z-a]", "[\0-\uffff]{99}", "a{0}", "a", "[ab]{300}", "\\", "x" * 2000, LONG):
        note(f"{pattern!r:.100}")
        for path in (("codecs", index, "pattern"), ("schema", "columns", index, "id_pattern")):
            if (path[0], pattern) != ("schema", ""):
                refused(sealed(changed("independent", ("generator", *path), pattern)), weights)
    for size in ("0", "-1", str(2**62 + 1), "1e3", " 5", "0x10", "٣", "1_000", str(16**13 * 26 + 1), 5, None):
        refused(sealed(changed("independent", ("generator", "codecs", index, "size"), size)), weights)
    for size in ("1", "2", str(16**13)):
        sound(sealed(changed("independent", ("generator", "codecs", index, "size"), size)), weights)
    for base in (str(2**63), str(-(2**63) - 1), str(2**63 - 2**52 + 1)):
        refused(sealed(changed("independent", ("generator", "codecs", 0, "base"), base)), weights, "int64")


def models_at_their_limits() -> None:
    """Each draws by real plans, with conditions on every column."""
    for family in FAMILIES:
        equal(Sound(len(_KEPT)), read(*small(family), every=True))
        equal(Sound(len(SCHEMA.columns)), read(*stored(family)))
    arrays = tensors("ctgan")
    for scale in (0.0, 2.0**96):
        flat = {name: np.full_like(arrays[name], scale) for name in arrays if name.endswith(".scale")}
        equal(Sound(len(_KEPT)), read(*with_tensors("ctgan", **flat), every=True))
    turned = {name: np.full_like(array, -128) for name, array in arrays.items() if name.endswith(".weight")}
    sound(*with_tensors("ctgan", **turned))
    arrays = tensors("tvae")
    sound(*with_tensors("tvae", spread=np.full_like(arrays["spread"], 2**40)))
    for name in ("centers", "widths"):
        huge = {f"codec.{index}.{name}": np.full_like(arrays[f"codec.{index}.{name}"], 8e307) for index in (3, 4)}
        sound(*with_tensors("tvae", **huge))


def damaged_weights(family: str) -> None:
    """Bytes changed anywhere, or in the header alone, and signed."""
    weights = small(family)[1]
    outcomes = [type(read(*with_weights(family, mutant))) for mutant in mutants(weights, family, 60)]
    equal(True, 0 < outcomes.count(Refused) < 60)
    (size,) = struct.unpack_from("<Q", weights)
    for mutant in mutants(weights[8 : 8 + size], f"header of {family}", 100):
        read(*with_weights(family, file_of(mutant, weights[8 + size :])))


def damaged_manifests(family: str) -> None:
    """Bytes of the generator's section changed anywhere, and signed where it still is JSON."""
    weights = small(family)[1]
    section = rfc8785.dumps(manifest_of(family)["generator"])
    parsed = 0
    for mutant in mutants(section, family, 150):
        try:
            generator_ = json.loads(mutant)
        except (ValueError, RecursionError):
            read(b'{"format":1,"generator":' + mutant + b',"model_digest":""}', weights)
            continue
        parsed += 1
        read(sealed({"format": 1, "generator": generator_}), weights, kernels=KERNELS[parsed % 2 :][:1])
    equal(True, parsed > 20)


def _measured(case: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        for name in KERNELS:
            kernel(name)  # what they take is no model's
        with GROWTH.measured():
            case()

    return run


WALKS: Mapping[str, tuple[str, Path]] = {
    "every value of the columns, signed": ("independent", ("generator", "schema")),
    "every value of the codecs, signed": ("independent", ("generator", "codecs")),
    **{
        f"every value of the {part} of {family}, signed": (family, ("generator", part))
        for family in FAMILIES
        for part in ("algorithm", "arithmetic", "family", "grid", "network", "weights")
    },
    "every value of the format, signed": ("tvae", ("format",)),
}

CASES: dict[str, Callable[[], None]] = {
    name: _measured(case)
    for name, case in {
        **{
            case.__name__: case
            for case in (
                every_value_under_the_old_digests,
                bytes_that_are_no_manifest,
                numbers_that_no_manifest_has,
                keys_given_twice,
                other_versions,
                wrong_digests,
                missing_parts,
                columns_of_another_kind,
                cells_of_no_column,
                grids,
                weights_cut_at_every_byte,
                headers_that_lie,
                offsets_that_lie,
                shapes_and_types_that_lie,
                arrays_of_another_type,
                missing_and_extra_arrays,
                sums_that_wrap,
                slots_beyond_their_column,
                moments_outside_the_calendar,
                formats_and_zones,
                patterns,
                models_at_their_limits,
            )
        },
        **{name: partial(every_value_signed, *walk) for name, walk in WALKS.items()},
        **{f"extreme numbers in {family}": partial(extreme_numbers, family) for family in FAMILIES},
        **{f"damaged weights of {family}": partial(damaged_weights, family) for family in FAMILIES},
        **{f"damaged manifests of {family}": partial(damaged_manifests, family) for family in FAMILIES},
    }.items()
}
