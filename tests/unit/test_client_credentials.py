"""What a client shows, to whom, and what it refuses to show."""

import grpc
import pytest

from rowmint.client import Client, Credentials, RowmintCallError
from rowmint.client.retry import RetryPolicy
from rowmint.errors import InvalidFieldError, UnavailableError
from tests.unit.fake_services import services

ONCE = RetryPolicy(attempts=1, unary_attempts=1)
NOWHERE = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("trainer", "sampler"),
    [
        ("10.0.0.5:7401", NOWHERE),
        (NOWHERE, "sampler.example.org:7402"),
        (NOWHERE, "127.0.0.1:7402,10.0.0.6:7402"),
        (NOWHERE, "dns:///localhost.example.org:7402"),
        (NOWHERE, "127.0.0.1.example.org:7402"),
    ],
)
def test_a_token_is_not_sent_in_plain_text_over_a_network(trainer, sampler):
    with pytest.raises(InvalidFieldError, match=r"a token is not sent to .* in plain text"):
        Client(trainer, sampler, credentials=Credentials(tls=False, token="rowmint_x"))
    Client(trainer, sampler, credentials=Credentials(token="rowmint_x")).close()


@pytest.mark.parametrize("sampler", ["127.0.0.1:7402", "localhost:7402,[::1]:7402", "dns:///localhost:7402"])
def test_a_token_is_sent_in_plain_text_to_this_machine(sampler):
    Client(NOWHERE, sampler, credentials=Credentials(tls=False, token="rowmint_x")).close()


@pytest.mark.parametrize("token", ["", "two words", "a\nb", "ü", "x" * 8193])
def test_what_can_be_no_token_is_not_sent(token):
    with (
        Client(NOWHERE, NOWHERE, credentials=Credentials(tls=False, token=lambda: token), retry=ONCE) as client,
        pytest.raises(InvalidFieldError, match="the token is empty, too long, or has characters"),
    ):
        list(client.list_models())


def test_a_token_file_is_read_again_for_each_call(tmp_path):
    file = tmp_path / "token"
    credentials = Credentials.from_files(token_file=file)
    with Client(NOWHERE, NOWHERE, credentials=credentials, retry=ONCE) as client:
        with pytest.raises(UnavailableError, match="token: No such file"):
            list(client.list_models())
        file.write_text("rowmint_x\n")
        with pytest.raises(RowmintCallError) as failure:
            list(client.list_models())
    assert failure.value.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"certificate": b"c"}, "certificate and key belong together"),
        ({"key": b"k"}, "certificate and key belong together"),
        ({"tls": False, "authorities": b"a"}, "certificates need TLS"),
        ({"tls": False, "server_name": "rowmint"}, "certificates need TLS"),
    ],
)
def test_contradicting_options_are_refused(given, said):
    with pytest.raises(InvalidFieldError, match=said):
        Credentials(**given)


def test_any_certificate_means_tls(tmp_path):
    (tmp_path / "ca.pem").write_text("pem")
    assert Credentials.from_files(authorities=tmp_path / "ca.pem").tls
    assert Credentials.from_files(server_name="rowmint").tls
    assert not Credentials.from_files(token="rowmint_x").tls
    with pytest.raises(UnavailableError, match=r"absent\.pem: No such file"):
        Credentials.from_files(authorities=tmp_path / "absent.pem")
    with pytest.raises(InvalidFieldError, match="give one of them"):
        Credentials.from_files(token="x", token_file=tmp_path / "token")


def test_secrets_are_not_shown():
    assert "secret" not in repr(Credentials(certificate=b"c", key=b"secret", token="secret"))


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_this_machine_is_not_reached_through_a_proxy(monkeypatch, variable):
    """A proxy of the environment is for what lies beyond this machine; here nothing answers at its address."""
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with services() as found, Client(found.trainer_address, found.sampler_address, retry=ONCE) as client:
        assert len(list(client.list_jobs())) == 1
