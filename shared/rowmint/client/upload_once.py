"""Uploads that are made once: a table that the service has already is used again."""

import os
from collections.abc import Callable, Sequence

from rowmint.client.byte_sources import Uploadable
from rowmint.client.datasets import DatasetCalls, UploadProgress, declared_dataset, file_name
from rowmint.client.errors import RowmintCallError
from rowmint.client.table_ids import id_from_contents
from rowmint.client.upload_source import UploadSource
from rowmint.errors import InvalidFieldError, Reason
from rowmint.v1 import dataset_pb2, schema_pb2

_OVERTAKEN = frozenset({Reason.RESOURCE_EXISTS, Reason.RESOURCE_NOT_FOUND, Reason.WRONG_STATE, Reason.FENCED})
"""How calls fail where another client uploads or deletes the same table; what there is then, is looked at again."""
_LOOK_SECONDS = 1.0
_LOOKS = 30
"""Looks at an upload that another client has taken over, without progress, after which it is taken back."""

OnFound = Callable[[dataset_pb2.Dataset], None]
"""Called with a dataset that was there already, as it was found."""


class UploadOnceCalls(DatasetCalls):
    """The part of the client for datasets that are named after what they hold."""

    def upload_once(
        self,
        source: Uploadable,
        name: str | os.PathLike[str] | None = None,
        *,
        format: str | dataset_pb2.DataFormat | None = None,  # noqa: A002  # the field's name
        columns: Sequence[schema_pb2.ColumnSpec] = (),
        primary_key: str = "",
        no_primary_key: bool = False,
        infinite: dataset_pb2.InfinitePolicy.ValueType = dataset_pb2.INFINITE_POLICY_UNSPECIFIED,
        sheet: str | None = None,
        progress: UploadProgress | None = None,
        on_found: OnFound | None = None,
        wait: bool = True,
        timeout: float | None = None,
    ) -> dataset_pb2.Dataset:
        """Upload a table unless it was uploaded before; other arguments and errors as in `upload`.

        The dataset's id is made of the name and of a digest of the bytes and of all that says how they are read. Where
        there is such a dataset it is used: one that is READY as it is; one that is being read is waited for; an upload
        that broke off is resumed; one that failed is deleted and uploaded again. Several clients may do so at once.

        Args:
            source: As in `upload`. What can be read only once gets an id made by the service, and is always uploaded.
            name: What the id begins with; None for the name of the file.
            format: How the bytes are to be read; None to infer it from the file's suffix.
            columns: Declared columns; the others are inferred from the data.
            primary_key: Name of the primary key column, or empty.
            no_primary_key: Whether the table has none, and none is to be proposed.
            infinite: What is done with infinite numbers; by default they are refused.
            sheet: Name of the sheet, of an Excel workbook that has several.
            progress: Called with bytes sent and bytes in all.
            on_found: Called once where there is such a dataset.
            wait: Whether to wait until the table is READY.
            timeout: Seconds to wait for that; None for as long as it takes.

        Raises:
            InvalidFieldError: The source has no name and none is given, or the dataset of this id has other bytes.
        """
        reader = UploadSource(source, sheet=sheet)
        try:
            declared = declared_dataset(
                format or reader.format or None,
                reader.name,
                columns=columns,
                primary_key=primary_key,
                no_primary_key=no_primary_key,
                infinite=infinite,
            )
            if reader.rewindable:
                dataset = self._upload_named(reader, name or reader.name, declared, progress, on_found)
            else:
                created = self._create_declared(None, declared)
                dataset = self.write_dataset(created.name, reader, progress=progress)
        finally:
            reader.close()
        return self._wait_named(dataset.name, timeout, file_name(source)) if wait else dataset

    def _upload_named(
        self,
        reader: UploadSource,
        name: str | os.PathLike[str],
        declared: dataset_pb2.Dataset,
        progress: UploadProgress | None,
        on_found: OnFound | None,
    ) -> dataset_pb2.Dataset:
        """Return the dataset of these bytes, all of them received."""
        if not name:
            raise InvalidFieldError("name", "is required where the table comes from no file")
        sha256 = reader.whole_digest()
        dataset_id = id_from_contents(name, declared, sha256)
        retry = self._connection.retry
        failures = 0
        while True:
            try:
                found, created = self._found_or_created(dataset_id, declared, sha256)
                if on_found is not None and not created:
                    on_found(found)
                    on_found = None
                if received := self._received(found, reader, progress):
                    return received
            except RowmintCallError as error:
                failures += 1
                if error.reason not in _OVERTAKEN or failures >= retry.attempts:
                    raise
                if error.reason == Reason.FENCED:
                    self._stand_by(dataset_id)
                else:
                    retry.wait(failures)

    def _found_or_created(
        self, dataset_id: str, declared: dataset_pb2.Dataset, sha256: bytes
    ) -> tuple[dataset_pb2.Dataset, bool]:
        """Return the dataset of an id, and whether it was created here."""
        try:
            return self._create_declared(dataset_id, declared), True
        except RowmintCallError as error:
            if error.reason != Reason.RESOURCE_EXISTS:
                raise
        found = self.get_dataset(dataset_id)
        if found.sha256 and found.sha256 != sha256:
            raise InvalidFieldError(
                "source", f"is not what {found.name} was made of; delete that dataset, or rename it"
            )
        return found, False

    def _received(
        self, found: dataset_pb2.Dataset, reader: UploadSource, progress: UploadProgress | None
    ) -> dataset_pb2.Dataset | None:
        """Return a dataset with all its bytes received; None for one that had failed, and is deleted."""
        if found.state == dataset_pb2.DATASET_STATE_FAILED:
            self.delete_dataset(found.name)
            return None
        if found.state == dataset_pb2.DATASET_STATE_UPLOADING:
            return self.write_dataset(found.name, reader, offset=found.committed_size, progress=progress)
        return found

    def _stand_by(self, dataset_id: str) -> None:
        """Wait while another client writes the same bytes: until they have all come, or it makes no progress."""
        committed, still = -1, 0
        while still < _LOOKS:
            try:
                found = self.get_dataset(dataset_id)
            except RowmintCallError as error:
                if error.reason == Reason.RESOURCE_NOT_FOUND:
                    return
                raise
            if found.state != dataset_pb2.DATASET_STATE_UPLOADING:
                return
            still = 0 if found.committed_size > committed else still + 1
            committed = found.committed_size
            self._connection.retry.sleep(_LOOK_SECONDS)
