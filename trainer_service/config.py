"""What is fitted and how: the training configuration as frozen values, the mirror of `rowmint.v1.TrainingConfig`.

Two checks, both before any work: `validate` looks at the configuration alone, `validate_against` at the configuration
and the dataset's schema. Errors name the proto's field, with the prefix ``training_job.config``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from rowmint.errors import InvalidFieldError
from rowmint.schema import KINDS_OF_TYPE, ColumnKind, ColumnSpec, DataType, TableSchema
from rowmint.schema.arrays import is_coded
from trainer_service.fitting.context import Device
from trainer_service.fitting.families import (
    Family,
    FamilyConfig,
    family_named,
    family_names,
    family_of,
    trainable_named,
    trainable_of,
    trainables,
)
from trainer_service.fitting.families.auto.config import LEAST_ROWS, AutoConfig
from trainer_service.fitting.families.hyperparameters import (
    Choice,
    Flag,
    Hyperparameter,
    Integer,
    Share,
    check_integer,
)
from trainer_service.fitting.options import PREFIX, ColumnOverride, EncodingOptions, HighCardinality

SEED_LIMIT = 1 << 64

SHARED: Mapping[str, Hyperparameter] = {
    "seed": Integer("Seed of every random draw of the fit", 0, SEED_LIMIT - 1),
    "device": Choice("Where networks are fitted", tuple(Device)),
    "threads": Integer("CPU threads; a fit is reproducible only with the same number", 1, 256),
    "holdout_fraction": Share("Share of the rows kept out of training", 0.5),
    "probe_epochs": Integer("Epochs between two probes of the quality of generated rows, 0 for none", 0, 100_000),
    "patience": Integer(
        "The fit stops when this many consecutive probes are not better than the best one before, 0 for never",
        0,
        100_000,
    ),
    "keep_best": Flag("Whether the weights of the best probe are published, not the last; patience implies it"),
}
"""Settings of every family by name, fields of `TrainingConfig`; those that depend on the table are not among them."""

UNSET: Mapping[str, str] = {"seed": "random", "threads": "the trainer's setting"}
"""What a job gets where it does not set one of `SHARED`, in words, if that is not the default of `TrainingConfig`."""


@dataclass(frozen=True)
class TrainingConfig:
    """A training configuration with every default filled in.

    Attributes:
        family: Hyper-parameters; their type is the family, or the choice among families.
        seed: Seed of every random draw, 0 to 2**64 - 1.
        device: Where the network is fitted.
        threads: CPU threads, 1 to 256.
        holdout_fraction: Share of the rows kept out of training, 0 to 0.5.
        column_overrides: At most one a column.
        primary_key: Primary key; None for the dataset's, empty for none.
        probe_epochs: Epochs between two probes of the rows' quality, 0 for none.
        patience: The fit stops when so many probes in a row were no better than the best before; 0 for never.
        keep_best: Whether the weights of the best probe are published, not the last; a fit that diverges then ends
            with them instead of failing. Patience implies it.
    """

    family: FamilyConfig
    seed: int
    device: Device = Device.CPU
    threads: int = 1
    holdout_fraction: float = 0.0
    column_overrides: tuple[ColumnOverride, ...] = ()
    primary_key: str | None = None
    probe_epochs: int = 10
    patience: int = 0
    keep_best: bool = False

    @property
    def declaration(self) -> Family:
        """What the family declares; `KeyError` for a choice among families."""
        return family_of(self.family)

    @property
    def family_name(self) -> str:
        """The name of what is requested, such as ``ctgan``."""
        return trainable_of(self.family).name

    @property
    def families(self) -> tuple[Family, ...]:
        """The families that are fitted, in order: one, or the candidates of a choice."""
        if isinstance(self.family, AutoConfig):
            return tuple(family_named(name) for name in self.family.families)
        return (self.declaration,)

    def compared_fraction(self, rows: int) -> float:
        """Return the share of a table's rows that a choice keeps out of training: as requested, else a tenth or more.

        Of a small table it is so many that the rows kept out are hardly ever fewer than `LEAST_ROWS`.
        """
        return self.holdout_fraction or min(0.5, max(0.1, 1.5 * LEAST_ROWS / rows))

    def candidate(self, family: Family, holdout_fraction: float) -> "TrainingConfig":
        """Return the configuration that a choice fits one of its families with.

        Args:
            family: One of `families`.
            holdout_fraction: Share of the rows kept out of training.
        """
        stops = family.iterative  # what takes no steps can neither stop early nor go back
        return replace(
            self,
            family=family.config(),
            holdout_fraction=holdout_fraction,
            patience=self.patience if stops else 0,
            keep_best=self.keep_best and stops,
        )


def validate(config: TrainingConfig) -> None:
    """Check a configuration by itself.

    Raises:
        InvalidFieldError: A field is out of range; the error names it.
    """
    path = f"{PREFIX}.{config.family_name}"
    config.family.validate(path)
    if isinstance(config.family, AutoConfig):
        for index, name in enumerate(config.family.families):
            if name not in family_names():
                raise InvalidFieldError(
                    f"{path}.families[{index}]", f"is {name!r}; must be one of {', '.join(family_names())}"
                )
    iterative = any(family.iterative for family in config.families)
    for name, setting in SHARED.items():
        setting.validate(f"{PREFIX}.{name}", getattr(config, name))
    for name, requested in (("patience", config.patience > 0), ("keep_best", config.keep_best)):
        if requested and config.probe_epochs == 0:
            raise InvalidFieldError(f"{PREFIX}.{name}", "needs probes; set probe_epochs to 1 or more")
        if requested and not iterative:
            raise InvalidFieldError(f"{PREFIX}.{name}", f"does not apply to {config.family_name}: it is not iterated")
    seen: set[str] = set()
    for index, override in enumerate(config.column_overrides):
        path = f"{PREFIX}.column_overrides[{index}]"
        if not override.column:
            raise InvalidFieldError(f"{path}.column", "is required")
        if override.column in seen:
            raise InvalidFieldError(f"{path}.column", f"column {override.column!r} is given more than once")
        seen.add(override.column)
        for name, limit in (("max_categories", 4096), ("min_category_count", 2**31 - 1), ("max_modes", 100)):
            value = getattr(override, name)
            if value is not None:
                check_integer(f"{path}.{name}", value, 1, limit)


def encoding_options(config: TrainingConfig) -> EncodingOptions:
    """Return how the table is encoded for `config`: as the family declares and the overrides set."""
    family = config.declaration
    return EncodingOptions(
        config.seed, pieces=family.pieces, max_categories=family.max_categories, overrides=config.column_overrides
    )


def effective_schema(config: TrainingConfig, schema: TableSchema) -> TableSchema:
    """Return the dataset's schema with the overrides' kinds and the primary key applied, every kind and type set.

    Args:
        config: A valid configuration.
        schema: The dataset's schema; every column has a type.

    Raises:
        ColumnNotFoundError: An override or the primary key names no column.
        InvalidFieldError: A column cannot be of the kind requested; the error names the field.
    """
    kinds: dict[str, ColumnKind] = {}
    for index, override in enumerate(config.column_overrides):
        column = schema.column(override.column)
        if override.kind is None:
            continue
        if override.kind not in _kinds(column):
            allowed = ", ".join(_kinds(column))
            raise InvalidFieldError(
                f"{PREFIX}.column_overrides[{index}].kind",
                f"column {column.name!r} is {column.data_type} and cannot be {override.kind}; it can be {allowed}",
            )
        kinds[column.name] = override.kind
    key = schema.primary_key if config.primary_key is None else config.primary_key
    if key:
        column = schema.column(key)
        kind = kinds.get(key, ColumnKind.ID)
        if ColumnKind.ID not in _kinds(column):
            raise InvalidFieldError(
                f"{PREFIX}.primary_key",
                f"column {key!r} is {column.data_type}; only int64 and string columns can be ids",
            )
        if kind not in (ColumnKind.ID, ColumnKind.IGNORED):
            raise InvalidFieldError(
                f"{PREFIX}.primary_key", f"column {key!r} is the primary key and cannot be {kind}; remove the override"
            )
        kinds[key] = kind
    columns = tuple(
        replace(column, kind=kinds.get(column.name, _kinds(column)[0] if column.kind is None else column.kind))
        for column in schema.columns
    )
    return TableSchema(columns, key)


def _kinds(column: ColumnSpec) -> tuple[ColumnKind, ...]:
    if column.data_type is None:
        raise InvalidFieldError("training_job.dataset", f"column {column.name!r} has no type; the dataset is not READY")
    return KINDS_OF_TYPE[column.data_type]


def validate_against(
    config: TrainingConfig, schema: TableSchema, row_count: int, distinct: Mapping[str, int] | None = None
) -> None:
    """Check a valid configuration against the dataset it is to be fitted to.

    Args:
        config: Passes `validate`.
        schema: The dataset's schema; every column has a type.
        row_count: Rows of the dataset.
        distinct: Different values of its columns, at least; None where it is not known.

    Raises:
        ColumnNotFoundError: An override or the primary key names no column.
        InvalidFieldError: An override is impossible, nothing is left to model, or there are too few rows.
    """
    effective = effective_schema(config, schema)
    for index, override in enumerate(config.column_overrides):
        path, column = f"{PREFIX}.column_overrides[{index}]", effective.column(override.column)
        _validate_override(path, override, column)
        if config.holdout_fraction == 0:  # else the rows left for training may have fewer
            found = 0 if distinct is None else distinct.get(column.name, 0)
            limit = max(family.max_categories for family in config.families)
            _validate_count(path, override, column, max(found, len(column.domain.categories)), limit)
    modelled = [column for column in effective.columns if column.kind not in (ColumnKind.ID, ColumnKind.IGNORED)]
    if not modelled:
        raise InvalidFieldError(
            f"{PREFIX}.column_overrides", "leave no column to model: every column is an id or ignored"
        )
    rows = row_count - round(row_count * config.holdout_fraction)
    needed = config.family.least_rows
    if rows < needed:
        kept = f", of which {rows} are for training" if rows < row_count else ""
        raise InvalidFieldError(
            "training_job.dataset", f"has {row_count} rows{kept}; {config.family_name} needs at least {needed}"
        )


def _validate_override(path: str, override: ColumnOverride, column: ColumnSpec) -> None:
    coded = is_coded(column)
    for name in ("high_cardinality", "max_categories", "min_category_count"):
        if getattr(override, name) is not None and not coded:
            raise InvalidFieldError(
                f"{path}.{name}", f"column {column.name!r} is {column.kind}; only a categorical column has categories"
            )
    if override.max_modes is not None and column.kind not in (ColumnKind.NUMERICAL, ColumnKind.DATETIME):
        raise InvalidFieldError(
            f"{path}.max_modes", f"column {column.name!r} is {column.kind}; only an ordered column has modes"
        )
    folds = override.min_category_count is not None and override.min_category_count > 1
    if column.data_type is not DataType.STRING and (folds or override.high_cardinality is HighCardinality.OTHER):
        name = "min_category_count" if folds else "high_cardinality"
        raise InvalidFieldError(
            f"{path}.{name}", f'column {column.name!r} is {column.data_type}; only text can become "other"'
        )


def _validate_count(path: str, override: ColumnOverride, column: ColumnSpec, count: int, default: int) -> None:
    """Refuse a column of too many values, where that is requested and no folding makes them fewer."""
    limit = default if override.max_categories is None else override.max_categories
    folds = override.min_category_count is not None and override.min_category_count > 1
    if override.high_cardinality is HighCardinality.REFUSE and not folds and count > limit:
        raise InvalidFieldError(
            f"{path}.high_cardinality",
            f"column {column.name!r} has {count:,} values or more, the limit is {limit:,}; raise max_categories, choose"
            " another policy, or make the column an ID or IGNORED",
        )


def to_json(config: TrainingConfig) -> dict[str, Any]:
    """Return the configuration as JSON values; the seed is text, as it may pass 2**53."""
    body = {key: value for key, value in asdict(config).items() if key not in ("family", "seed", "column_overrides")}
    family = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config.family).items()}
    overrides = [
        {key: value for key, value in asdict(override).items() if value is not None}
        for override in config.column_overrides
    ]
    whole = {**body, "seed": str(config.seed), config.family_name: family, "column_overrides": overrides}
    return {key: _plain(value) for key, value in whole.items()}


def _plain(value: Any) -> Any:
    """Return `value` with enums as their text."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value


def from_json(body: Mapping[str, Any]) -> TrainingConfig:
    """Return the configuration that `to_json` wrote.

    Raises:
        KeyError: A part is missing.
        ValueError: A value is not one of a closed set.
    """
    (name,) = (one.name for one in trainables() if one.name in body)
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in body[name].items()
    }
    return TrainingConfig(
        family=trainable_named(name).config(**fields),
        seed=int(body["seed"]),
        device=Device(body["device"]),
        threads=body["threads"],
        holdout_fraction=body["holdout_fraction"],
        column_overrides=_overrides(body["column_overrides"]),
        primary_key=body["primary_key"],
        # Jobs that were created before there were probes do not have these.
        probe_epochs=body.get("probe_epochs", 0),
        patience=body.get("patience", 0),
        keep_best=body.get("keep_best", False),
    )


def _overrides(bodies: Iterable[Mapping[str, Any]]) -> tuple[ColumnOverride, ...]:
    made = []
    for body in bodies:
        enums: dict[str, Any] = {}
        if "kind" in body:
            enums["kind"] = ColumnKind(body["kind"])
        if "high_cardinality" in body:
            enums["high_cardinality"] = HighCardinality(body["high_cardinality"])
        made.append(ColumnOverride(**{**body, **enums}))
    return tuple(made)
