"""The client's settings: what `Client` and the `rowmint` command read from the environment, and its names there.

No library of settings is used: the client must stay light to install and to import.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rowmint.client.balancing import parse_addresses, parse_balancing
from rowmint.client.credentials import Credentials
from rowmint.errors import InvalidFieldError
from rowmint.names import validate_id

VARIABLES = {
    "trainer": "ROWMINT_TRAINER",
    "sampler": "ROWMINT_SAMPLER",
    "project": "ROWMINT_PROJECT",
    "balancing": "ROWMINT_BALANCING",
    "tls": "ROWMINT_TLS",
    "authorities": "ROWMINT_CA",
    "certificate": "ROWMINT_CERTIFICATE",
    "key": "ROWMINT_KEY",
    "server_name": "ROWMINT_SERVER_NAME",
    "token": "ROWMINT_TOKEN",
    "token_file": "ROWMINT_TOKEN_FILE",
}
"""The environment variable of each setting."""

CREDENTIALS = ("tls", "authorities", "certificate", "key", "server_name", "token", "token_file")
"""The settings that make the credentials."""

_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


@dataclass(frozen=True)
class ClientSettings:
    """Where the services are, and how the client authenticates itself and them.

    Attributes:
        trainer: Address of the trainer, ``host:port``.
        sampler: Address of the sampler; several for several replicas.
        project: Project of short ids.
        balancing: How a new call chooses among several samplers: ``weighted`` or ``round_robin``.
        tls: Whether to use TLS; any certificate or a server name means it, too.
        authorities: PEM file of certificates that the services' must be issued by; empty for those this system trusts.
        certificate: PEM file of the client's certificate; empty for none.
        key: PEM file of its private key; empty for none.
        server_name: Name in the services' certificates where it is not that of their address.
        token: API key or bearer token; empty for none.
        token_file: File that holds one, read for each call; empty for none.
    """

    trainer: str = "127.0.0.1:7401"
    sampler: str | Sequence[str] = "127.0.0.1:7402"
    project: str = "default"
    balancing: str = "weighted"
    tls: bool = False
    authorities: str | Path = ""
    certificate: str | Path = ""
    key: str | Path = ""
    server_name: str = ""
    token: str = ""
    token_file: str | Path = ""

    @classmethod
    def load(
        cls,
        given: Mapping[str, object],
        environment: Mapping[str, str] | None = None,
        ignored: Collection[str] = (),
    ) -> Self:
        """Return settings: a given value, else that of the environment, else the default.

        Args:
            given: Values by attribute; None where there is none.
            environment: The environment; None for that of this process. An empty variable counts as unset.
            ignored: Attributes that are not read from the environment.

        Raises:
            InvalidFieldError: A variable has a value that it cannot have; the error names the variable.
        """
        variables = os.environ if environment is None else environment
        explicit = {name: value for name, value in given.items() if value is not None}
        if explicit.keys() & {"token", "token_file"}:
            # One replaces the other.
            explicit = {"token": "", "token_file": "", **explicit}
        if explicit.get("tls") is False:
            # What would imply TLS is not taken from the environment.
            explicit = {"authorities": "", "certificate": "", "key": "", "server_name": "", **explicit}
        read = {
            name: _parse(name, variables[variable])
            for name, variable in VARIABLES.items()
            if name not in explicit and name not in ignored and variables.get(variable)
        }
        if {"token", "token_file"} <= read.keys():
            raise InvalidFieldError("ROWMINT_TOKEN", "is set beside ROWMINT_TOKEN_FILE; set one of them")
        values = {**read, **explicit}
        if read.keys() & {"certificate", "key"} and not {"certificate", "key"} <= values.keys():
            raise InvalidFieldError(
                "ROWMINT_CERTIFICATE", "and ROWMINT_KEY belong together; set both of them or neither"
            )
        return cls(**values)  # type: ignore[arg-type]  # `_parse` returns each attribute's type

    def credentials(self) -> Credentials:
        """Return the credentials, reading the files of the certificates.

        Raises:
            UnavailableError: A file cannot be read.
            InvalidFieldError: What is set does not belong together.
        """
        return Credentials.from_files(
            tls=self.tls,
            authorities=self.authorities,
            certificate=self.certificate,
            key=self.key,
            token=self.token,
            token_file=self.token_file,
            server_name=self.server_name,
        )


def _parse(name: str, text: str) -> object:
    """Return the value of a setting's variable; errors as in `ClientSettings.load`."""
    variable = VARIABLES[name]
    match name:
        case "trainer" | "sampler":
            parse_addresses(text, variable)
        case "project":
            validate_id(text, variable)
        case "balancing":
            parse_balancing(text, variable)
        case "tls":
            if text.strip().lower() not in _BOOLEANS:
                raise InvalidFieldError(variable, f"{text!r} is not a boolean; set true or false")
            return _BOOLEANS[text.strip().lower()]
        case "authorities" | "certificate" | "key":
            if not Path(text).is_file():
                raise InvalidFieldError(variable, f"{text!r} is not a file")
    return text
