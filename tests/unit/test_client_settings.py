"""The client's settings: given values win over the environment, that over defaults; and what no variable may hold."""

import pyarrow as pa
import pytest

from rowmint.client import Client, Credentials, RowmintCallError, synthesize
from rowmint.client.retry import RetryPolicy
from rowmint.client.settings import CREDENTIALS, VARIABLES, ClientSettings
from rowmint.errors import InvalidFieldError
from tests.unit.fake_services import services
from tests.unit.fake_trainer import FakeTrainer

ONCE = RetryPolicy(attempts=1, unary_attempts=1)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


def test_without_anything_the_defaults_hold():
    assert ClientSettings.load({}, {}) == ClientSettings()
    assert ClientSettings.load(dict.fromkeys(VARIABLES), dict.fromkeys(VARIABLES.values(), "")) == ClientSettings()
    assert ClientSettings().credentials() == Credentials(tls=False)


def test_each_setting_has_its_variable(tmp_path):
    pem = tmp_path / "x.pem"
    pem.write_text("pem")
    environment = {
        "ROWMINT_TRAINER": "trainer:1",
        "ROWMINT_SAMPLER": "a:1,b:2",
        "ROWMINT_PROJECT": "acme",
        "ROWMINT_BALANCING": "round_robin",
        "ROWMINT_TLS": "TRUE",
        "ROWMINT_CA": str(pem),
        "ROWMINT_CERTIFICATE": str(pem),
        "ROWMINT_KEY": str(pem),
        "ROWMINT_SERVER_NAME": "rowmint",
        "ROWMINT_TOKEN": "rowmint_x",
    }
    expected = ClientSettings(
        trainer="trainer:1",
        sampler="a:1,b:2",
        project="acme",
        balancing="round_robin",
        tls=True,
        authorities=str(pem),
        certificate=str(pem),
        key=str(pem),
        server_name="rowmint",
        token="rowmint_x",
    )
    assert expected == ClientSettings.load({}, environment)
    assert ClientSettings.load({}, {"ROWMINT_TOKEN_FILE": "/absent"}).token_file == "/absent"
    assert set(VARIABLES) == set(vars(ClientSettings()))
    assert set(CREDENTIALS) <= set(VARIABLES)
    shown = ClientSettings.load({}, environment, ignored=CREDENTIALS)
    assert (shown.trainer, shown.tls, shown.token, shown.key) == ("trainer:1", False, "", "")


def test_a_given_value_wins():
    environment = {"ROWMINT_TRAINER": "trainer:1", "ROWMINT_PROJECT": "acme", "ROWMINT_TLS": "yes"}
    found = ClientSettings.load({"trainer": "here:1", "project": None, "tls": False}, environment)
    assert (found.trainer, found.project, found.tls) == ("here:1", "acme", False)
    # A malformed variable that is not needed is not looked at.
    assert ClientSettings.load({"project": "acme"}, {"ROWMINT_PROJECT": "A B"}).project == "acme"


def test_tls_that_is_declined_is_not_implied_by_the_environment():
    variables = ("ROWMINT_CA", "ROWMINT_CERTIFICATE", "ROWMINT_KEY", "ROWMINT_SERVER_NAME")
    environment = dict.fromkeys(variables, __file__)
    assert ClientSettings.load({}, environment).credentials().tls
    assert ClientSettings.load({"tls": False}, environment).credentials() == Credentials(tls=False)
    assert ClientSettings.load({"tls": False, "authorities": __file__}, environment).credentials().tls


def test_a_given_token_replaces_the_token_of_the_environment():
    by_file = ClientSettings.load({"token_file": "key"}, {"ROWMINT_TOKEN": "rowmint_x"})
    assert (by_file.token, by_file.token_file) == ("", "key")
    itself = ClientSettings.load({"token": "rowmint_y"}, {"ROWMINT_TOKEN_FILE": "key"})
    assert (itself.token, itself.token_file) == ("rowmint_y", "")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"ROWMINT_TRAINER": "nowhere"}, "ROWMINT_TRAINER: 'nowhere' is not an address"),
        ({"ROWMINT_SAMPLER": "a:1,b"}, "ROWMINT_SAMPLER: 'b' is not an address"),
        ({"ROWMINT_PROJECT": "A B"}, "ROWMINT_PROJECT: 'A B' is not an id"),
        ({"ROWMINT_BALANCING": "fair"}, "ROWMINT_BALANCING: 'fair' is unknown; choose one of weighted, round_robin"),
        ({"ROWMINT_TLS": "maybe"}, "ROWMINT_TLS: 'maybe' is not a boolean; set true or false"),
        ({"ROWMINT_CA": "/absent"}, "ROWMINT_CA: '/absent' is not a file"),
        ({"ROWMINT_CERTIFICATE": "/absent"}, "ROWMINT_CERTIFICATE: '/absent' is not a file"),
        ({"ROWMINT_KEY": __file__}, "ROWMINT_CERTIFICATE: and ROWMINT_KEY belong together"),
        ({"ROWMINT_CERTIFICATE": __file__}, "ROWMINT_CERTIFICATE: and ROWMINT_KEY belong together"),
        ({"ROWMINT_TOKEN": "x", "ROWMINT_TOKEN_FILE": "y"}, "ROWMINT_TOKEN: is set beside ROWMINT_TOKEN_FILE"),
    ],
)
def test_a_bad_value_names_its_variable(environment, said):
    with pytest.raises(InvalidFieldError) as caught:
        ClientSettings.load({}, environment)
    assert caught.value.message.startswith(said)


def test_a_client_reads_the_environment_and_its_arguments_win(monkeypatch):
    with services() as found:
        monkeypatch.setenv("ROWMINT_TRAINER", found.trainer_address)
        monkeypatch.setenv("ROWMINT_SAMPLER", found.sampler_address)
        monkeypatch.setenv("ROWMINT_PROJECT", "acme")
        monkeypatch.setenv("ROWMINT_TOKEN", "rowmint_x")
        with Client() as client:
            assert client.project == "projects/acme"
            assert [job.name for job in client.list_jobs()] == ["projects/default/trainingJobs/j1"]
            with client.sample("flights", 5, format="csv") as stream:
                assert b"".join(stream.chunks()).count(b"\n") == 6
        with Client(project="other") as client:
            assert client.project == "projects/other"
        with Client(trainer="127.0.0.1:1", retry=ONCE) as client, pytest.raises(RowmintCallError):
            list(client.list_jobs())
        # A token is not sent in plain text over a network, wherever it comes from.
        with pytest.raises(InvalidFieldError, match=r"a token is not sent to 10\.0\.0\.5:1 in plain text"):
            Client(trainer="10.0.0.5:1")
        Client(trainer="10.0.0.5:1", credentials=Credentials(tls=False)).close()


def test_a_clients_own_credentials_replace_those_of_the_environment(monkeypatch):
    monkeypatch.setenv("ROWMINT_TLS", "maybe")
    with pytest.raises(InvalidFieldError, match="ROWMINT_TLS"):
        Client()
    Client(credentials=Credentials(tls=False)).close()


def test_synthesize_reads_the_environment(monkeypatch, tmp_path):
    path = tmp_path / "flights.csv"
    path.write_bytes(b"origin,dep_delay\nJFK,5\n")
    trainer = FakeTrainer()
    with services(trainer) as found:
        monkeypatch.setenv("ROWMINT_TRAINER", found.trainer_address)
        monkeypatch.setenv("ROWMINT_SAMPLER", found.sampler_address)
        monkeypatch.setenv("ROWMINT_PROJECT", "acme")
        assert synthesize(path, 100).num_rows == 100
    assert trainer.created[0].parent == "projects/acme"


def test_synthesize_takes_a_table_and_needs_a_models_name_for_it():
    table = pa.table({"origin": ["JFK"], "dep_delay": [5]})
    trainer = FakeTrainer()
    with services(trainer) as found, Client(found.trainer_address, found.sampler_address) as client:
        with pytest.raises(InvalidFieldError, match="model: is required where the table comes from no file"):
            synthesize(table, 100, client=client)
        assert trainer.created == []
        assert synthesize(table, 100, model="delays", client=client).num_rows == 100
        assert trainer.created[0].dataset.format.WhichOneof("format") == "arrow_stream"
