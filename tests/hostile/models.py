"""Hostile models: manifests and weights with anything in them modified, digests computed again included.

Each ends in `DataLossError` when it is read, or it is a sound model: whatever is drawn from it is what its schema says,
in every format, and the same with every kernel.
"""

import json
import struct
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import rfc8785
import safetensors.numpy

from tests.golden.make import FAMILIES, FORMS, SCHEMA, stored
from tests.hostile.confined import GROWTH, note
from tests.hostile.manifest_cases import (
    bytes_that_are_no_manifest,
    cells_of_no_column,
    columns_of_another_kind,
    every_value_signed,
    every_value_under_the_old_digests,
    grids,
    keys_given_twice,
    missing_parts,
    numbers_that_no_manifest_has,
    other_versions,
    wrong_digests,
)
from tests.hostile.model_files import (
    KEPT,
    KERNELS,
    LONG,
    Path,
    changed,
    file_of,
    manifest_of,
    sealed,
    signed,
    small,
    tensors,
    with_tensors,
    with_weights,
)
from tests.hostile.model_reading import Refused, Sound, kernel, read, refused, sound
from tests.hostile.tensor_cases import (
    arrays_of_another_type,
    extreme_numbers,
    headers_that_lie,
    joint_columns_that_lie,
    missing_and_extra_arrays,
    offsets_that_lie,
    shapes_and_types_that_lie,
    sums_that_wrap,
    weights_cut_at_every_byte,
)
from tests.hostile.uploads import equal, mutants


def slots_beyond_their_column() -> None:
    columns, slots = tensors("ctgan")["drivers.column"], tensors("ctgan")["drivers.slot"]
    for column, slot in ((0, 0), (3, 99), (8, 0), (-1, 0), (2**62, 0), (1, 10), (1, -1), (1, 2**62), (2, 3), (7, 0)):
        requested = columns.copy(), slots.copy()
        requested[0][-1], requested[1][-1] = column, slot
        note(f"column {column}, slot {slot}")
        refused(*with_tensors("ctgan", drivers__column=requested[0], drivers__slot=requested[1]), "condition vector")
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
    # The whole calendar, whose last microsecond is rounded up when it is counted from the first.
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
    index = len(KEPT) - 1
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
        equal(Sound(len(KEPT)), read(*small(family), every=True))
        equal(Sound(len(SCHEMA.columns)), read(*stored(family)))
    arrays = tensors("ctgan")
    for scale in (0.0, 2.0**96):
        flat = {name: np.full_like(arrays[name], scale) for name in arrays if name.endswith(".scale")}
        equal(Sound(len(KEPT)), read(*with_tensors("ctgan", **flat), every=True))
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
    # Nearly all of a circuit's weights are rows of a known sum, so that any change shows.
    equal(True, 0 < outcomes.count(Refused) < (61 if family == "circuit" else 60))
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
            kernel(name)  # their memory is not a model's
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
    "every value of the columns with forms, signed": (FORMS, ("generator", "schema")),
    "every value of the codecs of ids with forms, signed": (FORMS, ("generator", "codecs")),
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
                joint_columns_that_lie,
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
