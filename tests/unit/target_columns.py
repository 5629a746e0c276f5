"""Columns as the ingest of a table decides about them."""

from rowmint.schema import ColumnSpec, Domain
from trainer_service.datasets.target import Target


def column_of(target: Target) -> ColumnSpec:
    """Return the column of a target."""
    return ColumnSpec(
        "x",
        data_type=target.data_type,
        domain=Domain(decimals=target.decimals),
        time_zone="UTC" if target.utc else "",
        written_form=target.form,
        datetime_format=target.datetime_format,
    )
