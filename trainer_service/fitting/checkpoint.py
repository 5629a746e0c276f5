"""A fit's whole state between two steps, as the bytes of one safetensors file.

Every draw of a fit is keyed by (seed, purpose, step), so there is no generator's state to keep. What is left: weights,
moments of the optimizers, averages, the best weights so far, and how far the fit has come.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import rfc8785
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from trainer_service.fitting.encoding.encoded_table import EncodedTable
from trainer_service.fitting.fitter import IterativeFitter
from trainer_service.fitting.loop import History
from trainer_service.fitting.monitoring.monitor import TrainingMonitor

_FORMAT = 1
_ABOUT = "about"  # the array that holds JSON
_FITTER, _BEST = "fitter.", "best."


class UnusableError(Exception):
    """A fit cannot be resumed from a checkpoint; the text says why."""


@dataclass(frozen=True)
class CheckpointFingerprint:
    """What a fit's numbers depend on beside its configuration.

    Attributes:
        encoding: SHA-256 of the fitted codecs and the counts of their choices, in hex.
        machine: Device kind, threads, versions: what float arithmetic depends on; JSON values.
    """

    encoding: str
    machine: Mapping[str, Any]

    @classmethod
    def of(cls, table: EncodedTable, machine: Mapping[str, Any]) -> Self:
        """Return the fingerprint of a fit to `table`."""
        digest = hashlib.sha256()
        for codec, counts in zip(table.codecs, table.counts, strict=True):
            body, arrays = codec.to_manifest()
            digest.update(rfc8785.dumps(body))
            for array in (*(arrays[name] for name in sorted(arrays)), counts):
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return cls(digest.hexdigest(), dict(machine))


def write(
    fitter: IterativeFitter, history: History, monitor: TrainingMonitor, fingerprint: CheckpointFingerprint
) -> bytes:
    """Return a checkpoint."""
    body, best = monitor.to_json()
    about = {
        "format": _FORMAT,
        "encoding": fingerprint.encoding,
        "fingerprint": dict(fingerprint.machine),
        "history": history.to_json(),
        "watch": body,
    }
    arrays: dict[str, NDArray[np.generic]] = {
        _ABOUT: np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8),
        **{_FITTER + name: array for name, array in fitter.state().items()},
        **{f"{_BEST}{index}": array for index, array in enumerate(best)},
    }
    return bytes(safetensors.numpy.save(arrays))


def restore(
    data: bytes, fitter: IterativeFitter, monitor: TrainingMonitor, fingerprint: CheckpointFingerprint
) -> History:
    """Bring a fit to where a checkpoint left it and return its history.

    On another machine the fit is resumed too, but its weights are no longer those of an uninterrupted one: the history
    says so.

    Raises:
        UnusableError: It is of another encoding or another version's; `fitter` and `monitor` may be half restored.
    """
    try:
        arrays = safetensors.numpy.load(data)
        about = json.loads(arrays[_ABOUT].tobytes())
        if about["format"] != _FORMAT:
            raise UnusableError(f"it has format {about['format']}, this version writes {_FORMAT}")
        if about["encoding"] != fingerprint.encoding:
            raise UnusableError("the table is encoded in another way here")
        history = History.from_json(about["history"])
        history.reproducible &= about["fingerprint"] == fingerprint.machine
        fitter.load_state({name.removeprefix(_FITTER): arrays[name] for name in arrays if name.startswith(_FITTER)})
        best = [name for name in arrays if name.startswith(_BEST)]
        monitor.load_json(about["watch"], [arrays[f"{_BEST}{index}"] for index in range(len(best))])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UnusableError(f"it cannot be read ({type(error).__name__})") from error
    history.resumed_steps.append(history.steps)
    return history
