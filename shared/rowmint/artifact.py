"""A published model: `manifest.json` and `weights.safetensors`. Data, never code.

The manifest has two parts. `generator` is everything rows depend on: family, schema, codecs, arithmetic, grid,
algorithm number, and size and SHA-256 of the weights; the *model digest* is the SHA-256 of its canonical JSON (RFC
8785). The rest says where the model came from; the *manifest digest* is the SHA-256 of the whole file, which is
canonical JSON too.
"""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import rfc8785
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from rowmint.codecs import Codec, IdentityCodec, load_codec
from rowmint.errors import ColumnNotFoundError, DataLossError, InvalidFieldError
from rowmint.sampling.plan import ALGORITHM, grid_rows
from rowmint.schema import TableSchema
from rowmint.synthesizer import Capabilities, Kernel, Synthesizer, load_synthesizer, synthesizer_family

FORMAT = 1
"""Version of the manifest's own layout."""
FORM_FORMAT = 2
"""That of a model whose columns have forms of their own, or whose ids are more than a permuted language.

Versions that know only the first would take such a model for one without, and serve other bytes under the same digest.
"""
ARITHMETIC = "exact-i8"
_MAX_SHOWN = 400
_COLUMN_BYTES = 4096  # measured, of the objects that stand for a column
_GRID_SLACK = 16  # another version may have estimated rows as so much smaller


@dataclass(frozen=True)
class Artifact:
    """The two files of a model version and their digests.

    Attributes:
        manifest: Bytes of `manifest.json`.
        weights: Bytes of `weights.safetensors`.
        model_digest: 32 bytes.
        manifest_digest: 32 bytes.
        weights_digest: 32 bytes.
    """

    manifest: bytes
    weights: bytes
    model_digest: bytes
    manifest_digest: bytes
    weights_digest: bytes

    @classmethod
    def of(cls, manifest: bytes, weights: bytes) -> Self:
        """Return a model's files with their digests; they are taken as they are.

        Raises:
            ValueError: The manifest is malformed.
            KeyError: It says no model digest.
        """
        model_digest = bytes.fromhex(json.loads(manifest)["model_digest"])
        return cls(manifest, weights, model_digest, hashlib.sha256(manifest).digest(), hashlib.sha256(weights).digest())

    def with_training(self, entries: Mapping[str, Any]) -> Self:
        """Return the files of the same model whose manifest says more in its ``training`` section; its rows stay."""
        body = json.loads(self.manifest)
        body["training"] = {**body["training"], **entries}
        return type(self).of(rfc8785.dumps(body), self.weights)


@dataclass(frozen=True)
class FittedModel:
    """A fitted model, ready to be written.

    Attributes:
        family: Name of one of `rowmint.synthesizer.FAMILIES`.
        schema: Shape of the rows, ignored columns left out, categories and bounds filled in.
        codecs: One a column.
        network: The manifest's ``network`` entry; empty for families that have none.
        arrays: The family's arrays by name; codecs bring their own.
    """

    family: str
    schema: TableSchema
    codecs: Sequence[Codec]
    network: Mapping[str, Any]
    arrays: Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Model:
    """A loaded model version. Immutable, thread-safe.

    Attributes:
        digest: Model digest, 32 bytes.
        schema: Shape of the rows.
        grid: Rows of a batch.
        synthesizer: Makes every column but ids.
        identities: Codecs of id columns by name.
        memory_bytes: About how much memory it takes once everything that it keeps for requests has been made.
        capabilities: What its family offers; for models of before these were stored, what it offers today.
    """

    digest: bytes
    schema: TableSchema
    grid: int
    synthesizer: Synthesizer
    identities: Mapping[str, IdentityCodec]
    memory_bytes: int
    capabilities: Capabilities = field(default_factory=Capabilities)


def write_model(fitted: FittedModel, provenance: Mapping[str, Any]) -> Artifact:
    """Return the files of a model.

    Args:
        fitted: What rows depend on.
        provenance: The rest of the manifest: ``capabilities``, ``training``, ``privacy``, ``licence`` and so on; JSON
            values, integers below 2**53.
    """
    arrays = dict(fitted.arrays)
    bodies = []
    for index, codec in enumerate(fitted.codecs):
        body, own = codec.to_manifest()
        bodies.append(body)
        arrays.update({f"codec.{index}.{name}": array for name, array in own.items()})
    weights = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})
    section: dict[str, Any] = {
        "algorithm": ALGORITHM,
        "arithmetic": ARITHMETIC,
        "codecs": bodies,
        "family": fitted.family,
        "grid": grid_rows(fitted.schema),
        "network": dict(fitted.network),
        "schema": fitted.schema.to_json(),
        "weights": {"sha256": hashlib.sha256(weights).hexdigest(), "size": len(weights)},
    }
    model_digest = hashlib.sha256(rfc8785.dumps(section)).digest()
    layout = FORM_FORMAT if _has_forms(fitted) else FORMAT
    manifest = rfc8785.dumps({**provenance, "format": layout, "generator": section, "model_digest": model_digest.hex()})
    return Artifact(
        manifest, weights, model_digest, hashlib.sha256(manifest).digest(), hashlib.sha256(weights).digest()
    )


def _has_forms(fitted: FittedModel) -> bool:
    """Say whether a model needs the layout of forms; see `FORM_FORMAT`."""
    if any(column.written_form for column in fitted.schema.columns):
        return True
    return any(not codec.plain for codec in fitted.codecs if isinstance(codec, IdentityCodec))


def read_manifest(manifest: bytes, manifest_digest: bytes | None = None) -> dict[str, Any]:
    """Verify and parse a manifest.

    Args:
        manifest: The file's bytes.
        manifest_digest: What its SHA-256 must be; None to take it as it is.

    Raises:
        DataLossError: It is damaged, or of a format or algorithm this version does not know.
    """
    if manifest_digest is not None and hashlib.sha256(manifest).digest() != manifest_digest:
        raise DataLossError(
            "the stored manifest does not have the digest the registry says; restore it or delete the version"
        )
    try:
        body = json.loads(manifest, object_pairs_hook=_object)
        generator = body["generator"]
        known = (body["format"], generator["algorithm"], generator["arithmetic"])
        model_digest = hashlib.sha256(rfc8785.dumps(generator)).hexdigest()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataLossError(_brief(f"the manifest is malformed: {error}")) from error
    if repr(known) not in [repr((layout, ALGORITHM, ARITHMETIC)) for layout in (FORMAT, FORM_FORMAT)]:  # 1 equals True
        shown = [_brief(str(part)) for part in known]
        raise DataLossError(
            f"the model has format {shown[0]}, algorithm {shown[1]}, arithmetic {shown[2]}; this version reads"
            f" {FORMAT} or {FORM_FORMAT}, {ALGORITHM}, {ARITHMETIC}: update the service"
        )
    if model_digest != body.get("model_digest"):
        raise DataLossError("the manifest's generator section does not have the model digest it says")
    return dict(body)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):  # one reader would take the first, another the last
        raise ValueError("an object has a key twice")
    return found


def read_model(manifest: bytes, weights: bytes, kernel: Kernel, manifest_digest: bytes | None = None) -> Model:
    """Verify a model's files and load it; nothing is parsed before it is verified.

    Args:
        manifest: Bytes of `manifest.json`.
        weights: Bytes of `weights.safetensors`.
        kernel: Runs the networks.
        manifest_digest: What the manifest's SHA-256 must be; None to take it as it is.

    Raises:
        DataLossError: A file is damaged, or they do not make a model.
    """
    body = read_manifest(manifest, manifest_digest)
    generator = body["generator"]
    try:
        expected = dict(generator["weights"])
        size, sha256 = expected["size"], expected["sha256"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataLossError(_brief(f"the manifest does not describe its weights: {error!r}")) from error
    if len(weights) != size or hashlib.sha256(weights).hexdigest() != sha256:
        raise DataLossError("the stored weights do not have the size or digest the manifest says; restore them")
    try:
        arrays: dict[str, NDArray[np.generic]] = safetensors.numpy.load(weights)
        schema = TableSchema.from_json(generator["schema"])
        synthesizer = load_synthesizer(generator, schema, arrays, kernel)
        stored = body.get("capabilities")
        own = synthesizer_family(generator["family"]).capabilities
        capabilities = own if stored is None else Capabilities.from_json(stored)
        # Last, as it writes out the categories: only checked ones have no more than a thousand digits.
        grid = _grid(generator["grid"], schema)
        identities = {
            column.name: codec
            for column, entry in zip(schema.columns, generator["codecs"], strict=True)
            if entry["codec"] == "identity" and isinstance(codec := load_codec(column, entry, {}), IdentityCodec)
        }
    except DataLossError as error:
        raise DataLossError(_brief(error.message)) from error
    except (
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        OverflowError,
        InvalidFieldError,
        ColumnNotFoundError,
    ) as error:
        raise DataLossError(_brief(f"the model is malformed: {error}")) from error
    return Model(
        bytes.fromhex(body["model_digest"]),
        schema,
        grid,
        synthesizer,
        identities,
        synthesizer.memory_bytes + _memory_bytes(schema, arrays),
        capabilities,
    )


def _memory_bytes(schema: TableSchema, arrays: Mapping[str, NDArray[np.generic]]) -> int:
    """Return about how much memory schema and codecs take: categories are objects, arrays have sums beside them."""
    categories = sum(sys.getsizeof(each) + 8 for column in schema.columns for each in column.domain.categories)
    codecs = sum(array.nbytes for name, array in arrays.items() if name.startswith("codec."))
    return categories + 2 * codecs + len(schema.columns) * _COLUMN_BYTES


def _brief(text: str) -> str:
    """Return a text that may hold anything out of a damaged file as a message may: short, and of Unicode."""
    shown = text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
    return shown.encode(errors="backslashreplace").decode()


def _grid(rows: Any, schema: TableSchema) -> int:
    """Return a manifest's grid; `ValueError` where it is not one, or its batches would be far too large."""
    most = _GRID_SLACK * grid_rows(schema)
    if not isinstance(rows, int) or isinstance(rows, bool) or not 1 <= rows <= most or rows & (rows - 1):
        raise ValueError(f"its grid is {rows!r}; it must be a power of two of at most {most} rows")
    return rows
