"""Settings of authentication: what goes together, and what is refused."""

import pytest
from pydantic import ValidationError

from rowmint.rpc.settings import is_loopback_address
from sampler_service.settings import SamplerSettings
from trainer_service.settings import TrainerSettings

PAIR = {"tls_certificate": "server.pem", "tls_key": "server-key.pem"}
OUTSIDE = {"listen": "0.0.0.0:7401"}
JWT = {"jwt_keys": "https://id.example.org/keys", "jwt_issuer": "https://id.example.org", "jwt_audience": "rowmint"}


@pytest.mark.parametrize("settings", [TrainerSettings, SamplerSettings])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (OUTSIDE, "set ROWMINT_TLS_CERTIFICATE and ROWMINT_TLS_KEY"),
        ({"listen": "[::]:7401"}, "set ROWMINT_TLS_CERTIFICATE"),
        ({"listen": "10.0.0.5:7401"}, "set ROWMINT_TLS_CERTIFICATE"),
        ({"listen": "trainer.example.org:7401"}, "set ROWMINT_TLS_CERTIFICATE"),
        (OUTSIDE | {"access_file": "access.json"}, "set ROWMINT_TLS_CERTIFICATE"),
        (OUTSIDE | PAIR, "set ROWMINT_ACCESS_FILE or ROWMINT_JWT_KEYS"),
        ({"metrics_listen": "0.0.0.0:9464"}, "set ROWMINT_TLS_CLIENT_CA"),
        (OUTSIDE | PAIR | JWT | {"metrics_listen": "0.0.0.0:9464"}, "set ROWMINT_TLS_CLIENT_CA"),
        ({"tls_certificate": "server.pem"}, "set both or neither"),
        ({"tls_key": "server-key.pem"}, "set both or neither"),
        ({"tls_client_ca": "ca.pem", "access_file": "access.json"}, "requires ROWMINT_TLS_CERTIFICATE"),
        (PAIR | {"tls_client_ca": "ca.pem"}, "also set ROWMINT_ACCESS_FILE"),
        ({"jwt_keys": "keys.json"}, "requires ROWMINT_JWT_ISSUER and ROWMINT_JWT_AUDIENCE"),
        ({"jwt_keys": "keys.json", "jwt_issuer": "me"}, "requires ROWMINT_JWT_ISSUER and ROWMINT_JWT_AUDIENCE"),
        ({"jwt_issuer": "me", "access_file": "access.json"}, "have no effect without ROWMINT_JWT_KEYS"),
        ({"jwt_audience": "rowmint"}, "have no effect without ROWMINT_JWT_KEYS"),
        (PAIR | JWT | {"tls_client_ca": "ca.pem", "metrics_listen": "127.0.0.1:9464"}, "only ROWMINT_ACCESS_FILE"),
    ],
)
def test_settings_that_admit_unauthenticated_callers_are_refused(settings, given, said):
    with pytest.raises(ValidationError) as failure:
        settings(**given)
    assert said in str(failure.value)


@pytest.mark.parametrize("settings", [TrainerSettings, SamplerSettings])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"listen": "[::1]:7401", "metrics_listen": "localhost:9464"},
        {"access_file": "access.json"},
        OUTSIDE | PAIR | {"access_file": "access.json"},
        OUTSIDE | PAIR | JWT,
        OUTSIDE | PAIR | {"access_file": "access.json", "tls_client_ca": "ca.pem", "metrics_listen": "0.0.0.0:9464"},
        OUTSIDE | {"insecure": True, "metrics_listen": "0.0.0.0:9464"},
    ],
)
def test_consistent_settings_are_accepted(settings, given):
    found = settings(**given)
    assert found.requires_credentials == ("access_file" in given or "jwt_keys" in given)
    assert (found.tls_files is not None) == ("tls_certificate" in given)


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("localhost.example.org:1", False),
        ("127.0.0.1.example.org:1", False),
        ("192.168.0.1:1", False),
        ("", False),
    ],
)
def test_what_only_this_machine_reaches(listen, expected):
    assert is_loopback_address(listen) == expected
