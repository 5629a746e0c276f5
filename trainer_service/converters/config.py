"""`rowmint.v1.TrainingConfig` to `trainer_service.config` and back. Pure."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from google.protobuf.message import Message

from rowmint.errors import InvalidFieldError
from rowmint.rpc.converters import COLUMN_KINDS, kind_from_proto
from rowmint.v1 import schema_pb2, training_job_pb2
from trainer_service.config import TrainingConfig, validate
from trainer_service.fitting.context import Device
from trainer_service.fitting.families import FamilyConfig, trainable_named, trainables
from trainer_service.fitting.options import PREFIX, ColumnOverride, HighCardinality

_T = TypeVar("_T")

_POLICIES: Mapping[int, HighCardinality] = {
    schema_pb2.HIGH_CARDINALITY_TAIL: HighCardinality.TAIL,
    schema_pb2.HIGH_CARDINALITY_OTHER: HighCardinality.OTHER,
    schema_pb2.HIGH_CARDINALITY_REFUSE: HighCardinality.REFUSE,
}
_DEVICES: Mapping[int, Device] = {
    training_job_pb2.DEVICE_CPU: Device.CPU,
    training_job_pb2.DEVICE_CUDA: Device.CUDA,
}
_POLICY_NUMBERS = {policy: number for number, policy in _POLICIES.items()}
_DEVICE_NUMBERS = {device: number for number, device in _DEVICES.items()}


def config_from_proto(message: training_job_pb2.TrainingConfig, *, seed: int, threads: int) -> TrainingConfig:
    """Return the valid configuration that `message` requests.

    Args:
        message: As the caller sent it: what is unset gets its default, an explicit 0 is validated.
        seed: Seed where none is set, drawn by the caller, 0 to 2**64 - 1.
        threads: CPU threads where none are set.

    Raises:
        InvalidFieldError: A field is missing or out of range; the error names it.
    """
    name = message.WhichOneof("family")
    if name is None:
        raise InvalidFieldError(
            f"{PREFIX}.family", "is required: set one of " + ", ".join(one.name for one in trainables())
        )
    config = TrainingConfig(
        family=_family(trainable_named(name).config, getattr(message, name)),
        seed=message.seed if message.HasField("seed") else seed,
        device=_known(_DEVICES, message.device, f"{PREFIX}.device") or Device.CPU,
        threads=message.threads if message.HasField("threads") else threads,
        holdout_fraction=message.holdout_fraction if message.HasField("holdout_fraction") else 0.0,
        column_overrides=tuple(
            _override(override, f"{PREFIX}.column_overrides[{index}]")
            for index, override in enumerate(message.column_overrides)
        ),
        primary_key=message.primary_key if message.HasField("primary_key") else None,
        probe_epochs=message.probe_epochs if message.HasField("probe_epochs") else TrainingConfig.probe_epochs,
        patience=message.patience if message.HasField("patience") else TrainingConfig.patience,
        keep_best=message.keep_best if message.HasField("keep_best") else TrainingConfig.keep_best,
    )
    validate(config)
    return config


def config_to_proto(config: TrainingConfig) -> training_job_pb2.TrainingConfig:
    """Return `config` as a message with every default filled in; overrides hold only what was set."""
    message = training_job_pb2.TrainingConfig(
        seed=config.seed,
        device=training_job_pb2.Device.ValueType(_DEVICE_NUMBERS[config.device]),
        threads=config.threads,
        holdout_fraction=config.holdout_fraction,
        primary_key=config.primary_key,
        probe_epochs=config.probe_epochs,
        patience=config.patience,
        keep_best=config.keep_best,
    )
    part: Message = getattr(message, config.family_name)
    part.SetInParent()  # a family without hyper-parameters has no field whose setting would choose it
    for field in fields(config.family):
        value = getattr(config.family, field.name)
        if isinstance(value, tuple):
            getattr(part, field.name).extend(value)
        else:
            setattr(part, field.name, value)
    for override in config.column_overrides:
        message.column_overrides.append(
            training_job_pb2.ColumnOverride(
                column=override.column,
                kind=schema_pb2.COLUMN_KIND_UNSPECIFIED if override.kind is None else COLUMN_KINDS[override.kind],
                high_cardinality=schema_pb2.HighCardinality.ValueType(
                    0 if override.high_cardinality is None else _POLICY_NUMBERS[override.high_cardinality]
                ),
                max_categories=override.max_categories,
                min_category_count=override.min_category_count,
                max_modes=override.max_modes,
            )
        )
    return message


def _family(family: type[FamilyConfig], message: Message) -> FamilyConfig:
    """Return the hyper-parameters in `message`: set scalars and non-empty lists; all else keeps its default."""
    given: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        # A set scalar has presence and is listed even where it is 0; an empty list is not listed.
        given[descriptor.name] = tuple(value) if hasattr(value, "extend") else value
    return family(**given)


def _override(message: training_job_pb2.ColumnOverride, path: str) -> ColumnOverride:
    return ColumnOverride(
        column=message.column,
        kind=kind_from_proto(message.kind, f"{path}.kind"),
        high_cardinality=_known(_POLICIES, message.high_cardinality, f"{path}.high_cardinality"),
        max_categories=message.max_categories if message.HasField("max_categories") else None,
        min_category_count=message.min_category_count if message.HasField("min_category_count") else None,
        max_modes=message.max_modes if message.HasField("max_modes") else None,
    )


def _known(values: Mapping[int, _T], number: int, field: str) -> _T | None:
    """Return the value of an enum's number, None where it is unspecified."""
    if number == 0:
        return None
    if number not in values:
        raise InvalidFieldError(field, f"{number} is not a value this service knows")
    return values[number]
