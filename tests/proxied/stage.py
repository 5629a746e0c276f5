"""Replicas behind one Envoy that answer in ways which change from test to test."""

from dataclasses import dataclass, field
from pathlib import Path

from tests.proxied.deployment import Deployment

_SAMPLERS = 2


@dataclass
class Stage:
    """Envoy before two samplers and a trainer, none of them real. They live on: their ways are those that only answer.

    Attributes:
        deployment: Where they run.
        folder: An empty folder for their configuration.
    """

    deployment: Deployment
    folder: Path
    _calls: list[Path] = field(default_factory=list)

    def start(self) -> None:
        """Start the replicas, and Envoy before them."""
        for number in range(_SAMPLERS + 1):
            self._behaviour(number).write_text("good")
        self._calls = [self.deployment.fake_sampler(f"@{self._behaviour(number)}") for number in range(_SAMPLERS)]
        self._calls.append(self.deployment.fake_trainer(f"@{self._behaviour(_SAMPLERS)}"))
        self.deployment.start_envoy()

    def samplers(self, one: str, other: str) -> list[Path]:
        """Say how both samplers answer from now on; return the files in which they note their calls, empty now."""
        return [self._set(number, behaviour) for number, behaviour in enumerate((one, other))]

    def trainer(self, behaviour: str) -> Path:
        """Say how the trainer answers from now on; return the file in which it notes its calls, empty now."""
        return self._set(_SAMPLERS, behaviour)

    def _set(self, number: int, behaviour: str) -> Path:
        self._behaviour(number).write_text(behaviour)
        self._calls[number].write_text("")
        return self._calls[number]

    def _behaviour(self, number: int) -> Path:
        return self.folder / f"behaviour-{number}"
