"""The table of fields with a bounded number of entries in docs/reliability.md, from the contract."""

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pool import Default

from rowmint.rpc.field_limits import max_items
from rowmint.v1 import (  # noqa: F401 - their descriptors are looked for in the default pool
    dataset_service_pb2,
    model_admin_service_pb2,
    model_service_pb2,
    sampling_service_pb2,
    training_service_pb2,
)
from tests.docs.pages import DOCS, table, text

PAGE = DOCS / "reliability.md"
BEGIN, END = "<!-- generated: bounds of fields -->\n", "<!-- end -->"
_SERVICES = ("Dataset", "ModelAdmin", "Model", "Sampling", "Training")


def bounded_fields() -> dict[str, FieldDescriptor]:
    """Return the repeated and map fields that a request can hold, by full name."""
    services = [Default().FindServiceByName(f"rowmint.v1.{name}Service") for name in _SERVICES]
    return {
        field.full_name: field
        for service in services
        for method in service.methods
        for field in _repeated(method.input_type, frozenset())
    }


def _repeated(kind: Descriptor, above: frozenset[str]) -> Iterator[FieldDescriptor]:
    for field in kind.fields:
        inner = field.message_type
        if field.is_repeated:
            yield field
        if inner is not None and inner.full_name not in above:
            yield from _repeated(inner, above | {inner.full_name})


def render() -> str:
    """Return the page with the table as it is generated now.

    Raises:
        ValueError: Its place is not marked.
    """
    before, begin, rest = text(PAGE).partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has no part between {BEGIN.strip()!r} and {END!r}")
    rows = [
        (f"`{name.removeprefix('rowmint.v1.')}`", f"{max_items(field):,}") for name, field in bounded_fields().items()
    ]
    return f"{before}{begin}{table(('field', 'most entries'), sorted(rows))}\n{end}{after}"
