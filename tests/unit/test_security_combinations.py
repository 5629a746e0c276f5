"""Every combination of the security settings, against what docs/security.md promises about it."""

import itertools
from dataclasses import dataclass

import pytest
from pydantic import ValidationError

from sampler_service.settings import SamplerSettings
from trainer_service.settings import TrainerSettings

LOOPBACK, OUTSIDE = "127.0.0.1:0", "0.0.0.0:0"


@dataclass(frozen=True)
class Combination:
    """What is set.

    Attributes:
        tls: Certificate and key of the server.
        client_ca: Authorities of client certificates (mutual TLS).
        access_file: API keys and certificates with their roles.
        jwt: Keys, issuer and audience of tokens.
        insecure: `ROWMINT_INSECURE`.
        listen: Address of the service.
        metrics: Address of the metrics; empty for none.
    """

    tls: bool = False
    client_ca: bool = False
    access_file: bool = False
    jwt: bool = False
    insecure: bool = False
    listen: str = LOOPBACK
    metrics: str = ""

    def settings(self, tls=None, client_ca="ca.pem", access_file="access.json", jwt_keys="keys.pem"):
        """Return the settings, with these files."""
        tls = tls or {"tls_certificate": "server.pem", "tls_key": "server-key.pem"}
        jwt = {"jwt_keys": jwt_keys, "jwt_issuer": "https://issuer.example", "jwt_audience": "rowmint"}
        return {
            **(tls if self.tls else {}),
            **({"tls_client_ca": client_ca} if self.client_ca else {}),
            **({"access_file": access_file} if self.access_file else {}),
            **(jwt if self.jwt else {}),
            **({"metrics_listen": self.metrics} if self.metrics else {}),
            "insecure": self.insecure,
            "listen": self.listen,
        }


COMBINATIONS = [
    Combination(*chosen)
    for chosen in itertools.product(*[(False, True)] * 5, (LOOPBACK, OUTSIDE), ("", LOOPBACK, OUTSIDE))
]


def promised_start(given):
    """Return whether a service starts, as docs/security.md has it."""
    authenticates = given.access_file or given.jwt
    if given.client_ca and not (given.tls and authenticates):
        return False  # mutual TLS is TLS, and a certificate alone grants nothing
    if given.client_ca and given.metrics and not given.access_file:
        return False  # no certificate could have a role in every project
    if given.insecure:
        return True
    if given.listen == OUTSIDE and not (given.tls and authenticates):
        return False
    return given.metrics != OUTSIDE or given.client_ca


@pytest.mark.parametrize("settings", [TrainerSettings, SamplerSettings])
def test_a_service_starts_with_the_combinations_that_the_page_promises_and_no_others(settings):
    def starts(given):
        try:
            settings(**given.settings())
        except ValidationError:
            return False
        return True

    assert len(COMBINATIONS) == 192
    assert {given: starts(given) for given in COMBINATIONS} == {given: promised_start(given) for given in COMBINATIONS}
