"""Encoders whose header is longer than that of their format, as that of very many columns is."""

from rowmint.sampling.formats import Encoder, make_encoder


class LongHeader:
    """An encoder with `more` bytes after the header of its format."""

    def __init__(self, encoder: Encoder, more: int) -> None:
        self._encoder = encoder
        self._more = more

    def header(self) -> bytes:
        return self._encoder.header() + bytes(index % 251 for index in range(self._more))

    def __getattr__(self, name: str):
        return getattr(self._encoder, name)


def lengthen(monkeypatch, more: int) -> None:
    """Make the header of every stream that is prepared so many bytes longer."""
    monkeypatch.setattr(
        "rowmint.sampling.prepared.make_encoder", lambda *what, **how: LongHeader(make_encoder(*what, **how), more)
    )
