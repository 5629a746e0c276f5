"""Hostile weights: headers, offsets, shapes, types and numbers that do not fit."""

import itertools
import json
import struct
from collections.abc import Mapping

import numpy as np
import safetensors.numpy

from tests.golden.make import FAMILIES
from tests.hostile.confined import note
from tests.hostile.model_files import (
    LONG,
    Json,
    file_of,
    header_of,
    manifest_of,
    own_tensors,
    signed,
    small,
    tensors,
    with_tensors,
    with_weights,
)
from tests.hostile.model_reading import Refused, Sound, read, refused, sound
from tests.hostile.uploads import equal


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
            if name.startswith("backoff.") and name.endswith(".weights"):  # a group that no bin has
                sound(*with_tensors(family, **{name: longer}))
            elif name != "layer.0.weight" or family == "ctgan":  # of more noise it is another model
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
    "uint16": (0, 1, 2**15, 2**16 - 1),
    "uint32": (0, 1, 2**24 - 1, 2**24, 2**24 + 1, 2**31, 2**32 - 1),
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


def joint_columns_that_lie() -> None:
    """A circuit whose root is a joint column, of which the one that was the root and what it decided are derived."""
    body, arrays = manifest_of("circuit"), dict(own_tensors("circuit"))
    network = body["generator"]["network"]
    joint, size = len(network["parents"]), len(arrays["bins.0.of"])
    for name in ("bins.0.of", "bins.0.weights", "emission.0"):
        arrays[name.replace("0", str(joint))] = arrays.pop(name)
    arrays["derived.0"] = np.arange(size, dtype=np.uint16)
    true = {
        "joint": [size],
        "parents": [-2, *(joint if parent == 0 else parent for parent in network["parents"][1:]), -1],
        "order": [joint, *network["order"][1:]],
        "derived": {"0": joint, "1": joint},
    }
    weights = safetensors.numpy.save({**tensors("circuit"), **arrays})

    def with_network(**lies: Json) -> bytes:
        network.update({**true, **lies})
        return signed(body, weights)

    sound(with_network(), weights)
    for counts in (
        [],
        [0],
        [-1],
        [size - 1],
        [size + 1],
        [size, size],
        [65_537],
        [2**62],
        [True],
        [1.0],
        ["1"],
        None,
        1,
    ):
        note(f"joint columns of {counts} choices")
        refused(with_network(joint=counts), weights)
    for derived in ({"0": joint}, {"0": 0, "1": joint}, {"0": joint, "1": joint + 1}, {str(joint): joint}):
        note(f"derived columns {derived}")
        refused(with_network(derived=derived), weights)
    decided = arrays["derived.0"] + np.uint16(size)
    beyond = safetensors.numpy.save({**tensors("circuit"), **arrays, "derived.0": decided})
    with_network()
    refused(signed(body, beyond), beyond, "a choice that the column does not have")
