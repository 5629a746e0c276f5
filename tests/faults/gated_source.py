"""A source of an upload that gives its bytes as far as a test has opened it."""

import io
import threading


class GatedSource(io.BytesIO):
    """Bytes, of which those behind the gate are waited for.

    Args:
        data: The bytes.
        opened: Bytes that are given at once.
    """

    def __init__(self, data: bytes, opened: int) -> None:
        super().__init__(data)
        self._opened = opened
        self._moved = threading.Condition()

    def open(self) -> None:
        """Give all bytes from now on."""
        with self._moved:
            self._opened = len(self.getbuffer())
            self._moved.notify_all()

    def read(self, size: int | None = -1, /) -> bytes:
        total = len(self.getbuffer())
        wanted = total - self.tell() if size is None or size < 0 else size
        with self._moved:
            if not self._moved.wait_for(lambda: self.tell() < self._opened or self._opened == total, timeout=120):
                raise TimeoutError("the gate was not opened")
            # Short before the gate: what is before it is not to wait for what is behind.
            return super().read(min(wanted, self._opened - self.tell()))
