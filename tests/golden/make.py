"""Makes the golden models: tiny hand-made ones, one a family, with NumPy alone and fixed seeds.

    python tests/golden/make.py            writes tests/golden/{family}.json and .safetensors
    python tests/golden/make.py --digests  writes tests/golden/digests.json from the files there

The files are frozen: they are made again only with a new algorithm number, and then docs/decisions.md says why.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowmint.artifact import Artifact, FittedModel, write_model
from rowmint.codecs import CategoryCodec, Codec, IdentityCodec, NumericCodec
from rowmint.rng import StreamKey
from rowmint.schema import Cell, ColumnKind, ColumnSpec, DataType, Domain, TableSchema
from rowmint.schema.forms import (
    CANONICAL,
    BooleanForm,
    DatetimeForm,
    ExponentStyle,
    Grouping,
    NameCase,
    NegativeStyle,
    NumberForm,
    PlusSign,
    StorageType,
    WrittenForm,
    ZoneStyle,
)
from rowmint.synthesizer.exact.layers import Layer
from rowmint.synthesizer.heads import ColumnHead, column_heads
from tests.golden.circuit import circuit_arrays

HERE = Path(__file__).parent
REJECTING = ("ctgan", "tvae", "independent")
"""Families that meet conditions by rejection."""
FAMILIES = (*REJECTING, "circuit")
FORMS = "forms"
"""Name of the golden model of the independent family whose columns have forms of their own."""
MODELS = (*FAMILIES, FORMS)

CITIES: tuple[Cell, ...] = (
    "Paris",
    "New York, NY",
    'the "Hague"',
    "",
    "=1+1",
    "Zürich",
    "two\nlines",
    "-5",
    "Oslo",
    "Rio",
    "Łódź",
    "Xi'an",
)
HOLIDAYS: tuple[Cell, ...] = (date(1969, 12, 31), date(2024, 2, 29), date(2030, 1, 1))
MINUTE = 60_000_000
NOON_2013 = 1_357_041_600_000_000


def column(name: str, kind: ColumnKind, data_type: DataType, **more: Any) -> ColumnSpec:
    """Return a column; `more` are fields of its domain and of itself."""
    domain = {key: more.pop(key) for key in list(more) if key in Domain.__dataclass_fields__}
    return ColumnSpec(name, kind, data_type, Domain(**{"nullable": False, **domain}), **more)


SCHEMA = TableSchema(
    (
        column("id", ColumnKind.ID, DataType.INT64),
        column("city", ColumnKind.CATEGORICAL, DataType.STRING, categories=CITIES, nullable=True),
        column("grade", ColumnKind.CATEGORICAL, DataType.INT64, categories=(1, 2, 3, -7)),
        column("flag", ColumnKind.BOOLEAN, DataType.BOOL, categories=(False, True), nullable=True),
        column("age", ColumnKind.NUMERICAL, DataType.INT64, minimum=0, maximum=99),
        column(
            "price",
            ColumnKind.NUMERICAL,
            DataType.DECIMAL,
            decimals=2,
            minimum=Decimal("-20.00"),
            maximum=Decimal("500.00"),
            nullable=True,
        ),
        column("ratio", ColumnKind.NUMERICAL, DataType.DOUBLE, minimum=-3.0, maximum=3.0),
        column("score", ColumnKind.NUMERICAL, DataType.DOUBLE, decimals=1, minimum=0.0, maximum=10.0, nullable=True),
        column("day", ColumnKind.DATETIME, DataType.DATE, minimum=date(1960, 1, 1), maximum=date(2040, 1, 1)),
        column(
            "seen",
            ColumnKind.DATETIME,
            DataType.TIMESTAMP,
            minimum=datetime(2012, 1, 1),  # noqa: DTZ001 - local
            maximum=datetime(2014, 1, 1),  # noqa: DTZ001 - local
            datetime_format="%d/%m/%Y %H:%M",
        ),
        column(
            "instant",
            ColumnKind.DATETIME,
            DataType.TIMESTAMP,
            minimum=datetime(1965, 1, 1, tzinfo=UTC),
            maximum=datetime(2014, 1, 1, tzinfo=UTC),
            nullable=True,
            time_zone="Europe/Berlin",
        ),
        column(
            "tier",
            ColumnKind.CATEGORICAL,
            DataType.DECIMAL,
            decimals=1,
            categories=(Decimal("0.5"), Decimal("-1.0"), Decimal("12.5")),
            nullable=True,
        ),
        column("holiday", ColumnKind.CATEGORICAL, DataType.DATE, categories=HOLIDAYS),
        column("void", ColumnKind.CATEGORICAL, DataType.STRING, nullable=True),
        column("badge", ColumnKind.ID, DataType.STRING, id_pattern="N[0-9A-F]{13},[a-z]"),
    ),
    "id",
)

MONEY = NumberForm(prefix="$", grouping=Grouping.THOUSANDS, group_separator=",", minimum_fraction_digits=2)


def form(
    own: NumberForm | DatetimeForm | BooleanForm | None = None, storage: StorageType | None = None, pad_width: int = 0
) -> WrittenForm:
    """Return a written form."""
    return WrittenForm(own, storage, pad_width)


_OWN_FORMS = {
    "grade": form(NumberForm(plus=PlusSign.POSITIVE, minimum_integer_digits=3), StorageType.INT16),
    "flag": form(BooleanForm("ja", "nein")),
    "age": form(storage=StorageType.UINT8, pad_width=5),
    "price": form(replace(MONEY, negative=NegativeStyle.PARENTHESES)),
    "ratio": form(NumberForm(exponent=ExponentStyle.ALWAYS, exponent_upper=True, exponent_plus=True)),
    "score": form(NumberForm(suffix=" %", decimal_separator=",", minimum_fraction_digits=1), StorageType.FLOAT32),
    "day": form(DatetimeForm("%a %-d. %B %y", names=NameCase.UPPER), StorageType.DATE64),
    "seen": form(DatetimeForm("%-m/%-d/%Y %-I:%M %p", lower_half=True), StorageType.TIMESTAMP_S),
    "instant": form(
        DatetimeForm("%Y-%m-%d[ %H:%M:%S][.%f]%z", -12_600, ZoneStyle.COLON, arrow_zone="America/St_Johns"),
        StorageType.TIMESTAMP_MS,
    ),
    "tier": form(NumberForm(negative=NegativeStyle.UNICODE_MINUS, leading_point=True, minimum_fraction_digits=2)),
    "holiday": form(DatetimeForm("%d-%b-%Y", names=NameCase.LOWER)),
    "city": form(storage=StorageType.LARGE_STRING),
}
_MORE_COLUMNS = (
    column(
        "clock",
        ColumnKind.NUMERICAL,
        DataType.INT64,
        minimum=0,
        maximum=86_399_000_000,
        written_form=form(DatetimeForm("%H:%M[:%S]"), StorageType.TIME32_S),
    ),
    column(
        "rupees",
        ColumnKind.NUMERICAL,
        DataType.INT64,
        minimum=-(10**9),
        maximum=10**9,
        written_form=form(
            NumberForm(
                suffix=" INR", grouping=Grouping.INDIAN, group_separator=",", negative=NegativeStyle.TRAILING_MINUS
            )
        ),
    ),
    column("row", ColumnKind.ID, DataType.INT64, written_form=form(storage=StorageType.INT32)),
    column("code", ColumnKind.ID, DataType.STRING, id_pattern="[a-z]{2,4}@x", nullable=True),
    column(
        "serial",
        ColumnKind.ID,
        DataType.STRING,
        id_pattern="1[0-7][0-9]{18}",
        written_form=form(None, StorageType.UINT64),
    ),
)
FORMS_SCHEMA = TableSchema(
    (
        *(replace(spec, written_form=_OWN_FORMS.get(spec.name, CANONICAL)) for spec in SCHEMA.columns),
        *_MORE_COLUMNS,
    ),
    "id",
)
"""`SCHEMA` with forms of every kind, and what only they make possible."""

_KEY = StreamKey(b"golden models".ljust(32, b"."), bytes(32), 1)


def noise(purpose: str, *shape: int) -> NDArray[np.float64]:
    """Return numbers in [-1, 1), uniform, a pure function of purpose and shape."""
    words = _KEY.tile(0, 0).words(purpose, int(np.prod(shape)))
    return ((words >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0).reshape(shape)


def weights_of(shares: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Return positive `shares` as integers of sum 2**32; what the division leaves over goes to the first."""
    weights = np.floor(shares / shares.sum() * 2.0**32).astype(np.uint64)
    weights[0] += np.uint64(1 << 32) - weights.sum(dtype=np.uint64)
    return weights


def codecs() -> list[Codec]:
    """Return a codec for each column of `SCHEMA`."""

    def category(size: int, head: int, nullable: bool) -> CategoryCodec:
        tail = weights_of(1.0 / np.arange(1, size - head + 1)) if size > head else np.zeros(0, np.uint64)
        return CategoryCodec(size, head, nullable, tail)

    def numeric(
        centers: Sequence[float],
        widths: Sequence[float],
        points: Sequence[float],
        bounds: tuple[float, float],
        **more: Any,
    ) -> NumericCodec:
        settings = {
            "on_grid": True, "origin": 0, "step": 1, "decimals": 0, "integral": True, "nullable": False, **more,
        }  # fmt: skip
        arrays = (np.array(values, np.float64) for values in (centers, widths, points))
        return NumericCodec(
            **settings,
            lower=bounds[0],
            upper=bounds[1],
            **dict(zip(("centers", "widths", "points"), arrays, strict=True)),
        )

    return [
        IdentityCodec(integral=True, base=100_000, size=1 << 52, pattern=""),
        category(12, 8, nullable=True),
        category(4, 4, nullable=False),
        category(2, 2, nullable=True),
        numeric([20, 60], [15, 30], [0, 42], (0, 99)),
        numeric([4000.0], [9000.0], [999.0], (-2000, 50000), nullable=True),
        numeric([-1.1, 0.7], [0.9, 2.2], [], (-3, 3), on_grid=False, integral=False),
        numeric([50.0], [60.0], [100.0], (0, 100), integral=False, decimals=1, nullable=True),
        numeric([0.0, 19000.0], [2000.0, 6000.0], [], (-3653, 25567)),
        numeric([0.0], [400_000.0], [], (-525_600, 525_600), origin=NOON_2013, step=MINUTE),
        numeric([0.0, 1.2e15], [1.5e14, 1.4e14], [], (-1.57e14, 1.388e15), nullable=True),
        category(3, 3, nullable=True),
        category(3, 2, nullable=False),
        category(0, 0, nullable=True),
        IdentityCodec(integral=False, base=0, size=16**13 * 26, pattern="N[0-9A-F]{13},[a-z]"),
    ]  # fmt: skip


def forms_codecs() -> list[Codec]:
    """Return a codec for each column of `FORMS_SCHEMA`."""
    empty = np.zeros(0)

    def numeric(center: float, width: float, bounds: tuple[float, float], origin: int, step: int) -> NumericCodec:
        modes = np.array([center]), np.array([width]), empty
        return NumericCodec(True, origin, step, 0, True, False, bounds[0], bounds[1], *modes)

    own = codecs()
    # The first rows have six digits, as the column had.
    own[0] = IdentityCodec(integral=True, base=100_000, size=1 << 52, pattern="", first=3_000)
    own[10] = numeric(0.0, 3.0e8, (-1.5e8, 3.0e8), 0, 1_000)
    return [
        *own,
        numeric(40_000.0, 50_000.0, (0, 86_399), 0, 1_000_000),
        numeric(0.0, 9.0e8, (-1e9, 1e9), 0, 1),
        IdentityCodec(integral=True, base=1, size=(1 << 31) - 1, pattern="", sequential=True),
        IdentityCodec(integral=False, base=0, size=26**2 + 26**3 + 26**4, pattern="[a-z]{2,4}@x", missing=1 << 30),
        IdentityCodec(integral=False, base=0, size=8 * 10**17, pattern="1[0-7][0-9]{18}"),
    ]


def _layer(name: str, typical: Sequence[float], outputs: int, *, scale: float) -> Layer:
    """Return a random layer centred on inputs that are `typical` on average."""
    weight = np.rint(noise(f"{name}.weight", len(typical), outputs) * 127).astype(np.int8)
    centre = -(np.array(typical) @ weight.astype(np.float64))
    bias = np.rint(centre + noise(f"{name}.bias", outputs) * 3000).astype(np.int32)
    scales = (scale * (1.0 + 0.25 * noise(f"{name}.scale", outputs))).astype(np.float32)
    return Layer(weight, bias, scales)


def network(
    heads: dict[str, ColumnHead],
    conditions: int,
    *,
    concatenate: bool,
    width: int = 16,
    hidden: Sequence[int] = (24, 20),
) -> dict[str, NDArray[np.generic]]:
    """Return a random network for some heads, as a model's arrays.

    Args:
        heads: The columns it makes outputs for.
        conditions: Condition vectors that it takes.
        concatenate: Whether layers are concatenated, as CTGAN's are.
        width: Inputs of noise.
        hidden: Units of each hidden layer.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    typical = [63.5] * width + [127 / max(1, conditions)] * conditions
    for index, units in enumerate(hidden):
        name = f"layer.{index}"
        arrays.update(_layer(name, typical, units, scale=0.009).to_arrays(name))
        typical = [18.0] * units + (typical if concatenate else [])
    outputs = max(head.stop for head in heads.values())
    layer = _layer("output", typical, outputs, scale=0.03)
    scale = layer.scale.copy()
    for head in heads.values():
        if head.codec.scalar:
            scale[head.start] *= np.float32(8)  # a tanh argument has units of 1 / 4096, a logit of 1 / 256
    arrays.update(Layer(layer.weight, layer.bias, scale).to_arrays("output"))
    return arrays


def generator(family: str, schema: TableSchema = SCHEMA, own: Sequence[Codec] | None = None) -> FittedModel:
    """Return a hand-made generator of `family`.

    Args:
        family: One of `FAMILIES`.
        schema: Its columns.
        own: Their codecs; None for those of `SCHEMA`.
    """
    chosen = codecs() if own is None else list(own)
    heads = column_heads(schema.columns, chosen)
    if family == "independent":
        weights = {
            f"slots.{head.index}": weights_of(1.1 + noise(f"slots.{head.index}", head.codec.choices))
            for head in heads.values()
        }
        return FittedModel(family, schema, chosen, {}, weights)
    if family == "circuit":
        entry, parameters = circuit_arrays([head.codec.choices for head in heads.values()], noise)
        return FittedModel(family, schema, chosen, entry, parameters)
    if family == "tvae":
        arrays = network(heads, 0, concatenate=False)
        scalars = [head for head in heads.values() if head.codec.scalar]
        spread = (0.15 + 0.1 * noise("spread", len(scalars))) * (1 << 23)
        return FittedModel(family, schema, chosen, {"hidden_layers": 2}, {**arrays, "spread": spread.astype(np.int64)})
    discrete = [head for head in heads.values() if isinstance(head.codec, CategoryCodec)]
    columns = np.concatenate([np.full(head.codec.choices, head.index) for head in discrete])
    slots = np.concatenate([np.arange(head.codec.choices) for head in discrete])
    drivers: dict[str, NDArray[np.generic]] = {
        "drivers.column": columns.astype(np.int64),
        "drivers.slot": slots.astype(np.int64),
        "drivers.weights": weights_of(1.2 + noise("drivers", len(slots))),
    }
    arrays = network(heads, len(slots), concatenate=True)
    return FittedModel(family, schema, chosen, {"hidden_layers": 2}, {**arrays, **drivers})


def artifact(family: str) -> Artifact:
    """Return the files of the golden model of `family`, or of that with forms."""
    provenance = {"licence": "none", "privacy": {"mode": "none"}, "training": {"rows": 0}}
    if family == FORMS:
        return write_model(generator("independent", FORMS_SCHEMA, forms_codecs()), provenance)
    return write_model(generator(family), provenance)


def stored(family: str) -> tuple[bytes, bytes]:
    """Return the frozen manifest and weights of `family`."""
    return (HERE / f"{family}.json").read_bytes(), (HERE / f"{family}.safetensors").read_bytes()


def main(arguments: Sequence[str]) -> None:
    """Write the files."""
    if list(arguments) == ["--digests"]:
        from tests.golden.streams import all_digests  # it reads the files that this writes

        text = json.dumps(all_digests("numpy"), indent=1, sort_keys=True)
        (HERE / "digests.json").write_text(text + "\n", encoding="utf-8")
        return
    for family in MODELS:
        made = artifact(family)
        (HERE / f"{family}.json").write_bytes(made.manifest)
        (HERE / f"{family}.safetensors").write_bytes(made.weights)


if __name__ == "__main__":
    main(sys.argv[1:])
