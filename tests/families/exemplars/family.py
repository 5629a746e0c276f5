"""The family of the tests: what would be one line in each list, were it a real one."""

from google.protobuf import descriptor_pb2

from rowmint.synthesizer import Mechanism
from tests.families.exemplars.config import ExemplarsConfig
from tests.families.exemplars.synthesizer import SYNTHESIZER
from trainer_service.fitting.families.family import Family, FitterFactory


def _load_fitter() -> FitterFactory:
    from tests.families.exemplars.fitter import ExemplarsFitter

    return ExemplarsFitter


EXEMPLARS = Family(
    name="exemplars",
    summary="Some training rows, drawn again and again",
    suits="tests",
    config=ExemplarsConfig,
    synthesizer=SYNTHESIZER,
    load_fitter=_load_fitter,
    iterative=True,
    privacy=frozenset({Mechanism.NOISY_MARGINALS}),
)


def declare(file: descriptor_pb2.FileDescriptorProto) -> None:
    """Add to `training_job.proto` what one writes there for a new family: its message, and the member that holds it."""
    kinds = descriptor_pb2.FieldDescriptorProto
    message = file.message_type.add(name="ExemplarsConfig")
    for number, (name, kind) in enumerate(
        (("epochs", kinds.TYPE_INT32), ("batch_size", kinds.TYPE_INT32), ("share", kinds.TYPE_DOUBLE),
         ("distinct", kinds.TYPE_BOOL))
    ):  # fmt: skip
        message.oneof_decl.add(name=f"_{name}")
        message.field.add(
            name=name,
            json_name=name,
            number=number + 1,
            type=kind,
            label=kinds.LABEL_OPTIONAL,
            oneof_index=number,
            proto3_optional=True,
        )
    message.field.add(name="strides", json_name="strides", number=5, type=kinds.TYPE_INT32, label=kinds.LABEL_REPEATED)
    (config,) = (found for found in file.message_type if found.name == "TrainingConfig")
    family = [oneof.name for oneof in config.oneof_decl].index("family")
    config.field.add(
        name="exemplars",
        json_name="exemplars",
        number=90,
        type=kinds.TYPE_MESSAGE,
        type_name=".rowmint.v1.ExemplarsConfig",
        label=kinds.LABEL_OPTIONAL,
        oneof_index=family,
    )
