"""What the family of the tests adds to the contract; it imports nothing that is made of the contract."""

from google.protobuf import descriptor_pb2

FILE = "rowmint/v1/training_job.proto"


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
