"""What keeps the sampler from the data is not its own code but its roles at database and store: tried from its side."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.request import Request, urlopen

import obstore
import psycopg
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store
from psycopg import errors, sql

from rowmint.client import Client
from rowmint.registry.tables import DATA, MODELS, metadata
from tests.acceptance.processes import ROOT, Services, customers_csv
from tests.postgres_server import PostgresServer
from tests.swift_server import SwiftServer

DATABASE = "rowmint"
ROLES = ("rowmint_trainer", "rowmint_sampler")
USER = "test:sampler"
DATA_TABLES = [table.name for table in metadata.sorted_tables if table.schema == DATA]
MODEL_TABLES = [table.name for table in metadata.sorted_tables if table.schema == MODELS]
COLUMN = {f"{table.schema}.{table.name}": next(iter(table.columns)).name for table in metadata.sorted_tables}
YET_TO_COME = "yet_to_come"


class TwoUsersSwift(SwiftServer):
    """Swift with a second user, who may do what a bucket's owner allows and nothing else."""

    def _configure(self) -> None:
        super()._configure()
        proxy = self.folder / "etc" / "proxy-server.conf"
        owner = f"user_test_tester = {self.secret} .admin\n"
        text = proxy.read_text()
        assert owner in text
        account, user = USER.split(":")
        proxy.write_text(text.replace(owner, f"{owner}user_{account}_{user} = {self.secret[::-1]}\n"))

    @property
    def sampler_options(self) -> dict[str, Any]:
        return {**self.options, "access_key_id": USER, "secret_access_key": self.secret[::-1]}

    def create_readable_bucket(self) -> str:
        """Make a bucket that the second user may read and list, and return its URL.

        S3 has no word for that which Swift knows; Swift's own, in a signed request of S3, it takes.
        """
        name = "readable"
        requested = obstore.sign(bucket(f"s3://{name}", self.options), "PUT", "", timedelta(minutes=1))
        urlopen(Request(requested, method="PUT", headers={"X-Container-Read": USER}), timeout=60).close()
        return f"s3://{name}"


@dataclass(frozen=True)
class Boundary:
    """A model that a trainer has published, and a sampler under its own roles that has served it.

    Attributes:
        sampler_url: The database as the sampler's role sees it.
        trainer_url: As the trainer's role does.
        data: The bucket of data, by the sampler's key.
        models: The bucket of models, by the sampler's key.
        data_keys: Keys of the objects that are in the former.
        model_keys: Keys of those that are in the latter.
        owned: Both buckets by the trainer's key.
        rows: What the sampler sent.
    """

    sampler_url: str
    trainer_url: str
    data: S3Store
    models: S3Store
    data_keys: list[str]
    model_keys: list[str]
    owned: tuple[S3Store, S3Store]
    rows: bytes


def bucket(url: str, options: dict[str, Any]) -> S3Store:
    kept = {name: value for name, value in options.items() if name not in ("client_options", "retry_config")}
    return S3Store(url.removeprefix("s3://"), config=kept, client_options={"allow_http": True})


def keys_in(store: S3Store) -> list[str]:
    return sorted(found["path"] for page in obstore.list(store) for found in page)


@pytest.fixture(scope="module")
def boundary(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boundary]:
    passwords = {"TRAINER_DATABASE_PASSWORD": "trains", "SAMPLER_DATABASE_PASSWORD": "samples"}
    trainer_url, sampler_url = (
        postgres.url(DATABASE, role, password) for role, password in zip(ROLES, passwords.values(), strict=True)
    )
    swift = TwoUsersSwift()
    services = Services(tmp_path_factory.mktemp("boundary"))
    try:
        swift.start()
        data, models = swift.create_bucket(), swift.create_readable_bucket()
        postgres.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
        postgres.run_script(ROOT / "deploy" / "postgres-init.sql", DATABASE, passwords)
        trainer = services.trainer(
            ROWMINT_REGISTRY=trainer_url,
            ROWMINT_DATA_STORE=data,
            ROWMINT_MODEL_STORE=models,
            ROWMINT_STORE_OPTIONS=json.dumps(swift.options),
        )
        sampler = services.sampler(
            ROWMINT_MODELS_REGISTRY=sampler_url,
            ROWMINT_MODEL_STORE=models,
            ROWMINT_STORE_OPTIONS=json.dumps(swift.sampler_options),
        )
        with Client(trainer.address, sampler.address) as client:
            dataset = client.upload(customers_csv(300), "customers", format="csv", primary_key="customer")
            client.wait_job(client.train(dataset, "customers", family="independent", seed=1))
            rows = b"".join(client.sample("customers", 50, seed=1, where={"city": "Oslo"}, format="csv").chunks())
        services.close()
        owned = bucket(data, swift.options), bucket(models, swift.options)
        yield Boundary(
            sampler_url,
            trainer_url,
            bucket(data, swift.sampler_options),
            bucket(models, swift.sampler_options),
            *map(keys_in, owned),
            owned,
            rows,
        )
    finally:
        services.close()
        swift.close()
        postgres.drop_database(postgres.url(DATABASE))
        for role in ROLES:
            postgres.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))


def connected(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url.replace("+psycopg", ""))


def attempt(boundary: Boundary, statement: str) -> None:
    """Run a statement as the sampler's role, with what it can give itself: a transaction that may write."""
    with connected(boundary.sampler_url) as connection:
        connection.execute("SET TRANSACTION READ WRITE")
        connection.execute(statement)


def refused(boundary: Boundary, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        attempt(boundary, statement)


def test_the_sampler_serves_a_model_under_its_own_roles(boundary: Boundary):
    rows = list(csv.DictReader(io.StringIO(boundary.rows.decode())))
    assert [row["city"] for row in rows] == ["Oslo"] * 50
    assert boundary.data_keys != []
    kinds = [key.partition("/")[0] for key in boundary.model_keys]
    assert sorted(kinds) == ["_rowmint", "default", "default"]  # the store's mark, and a version's two files


def test_the_tables_are_all_there_are(boundary: Boundary):
    with connected(boundary.trainer_url) as connection:
        found = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY(%s) AND tablename <> 'alembic_version'",
            [[DATA, MODELS]],
        ).fetchall()
    expected = {(DATA, name) for name in DATA_TABLES} | {(MODELS, name) for name in MODEL_TABLES}
    assert {one for one in found if YET_TO_COME not in one[1]} == expected


@pytest.mark.parametrize("table", [*DATA_TABLES, "alembic_version"])
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM {0}",
        "SELECT count(*) FROM {0}",
        "COPY {0} TO STDOUT",
        "INSERT INTO {0} DEFAULT VALUES",
        "UPDATE {0} SET {1} = {1}",
        "DELETE FROM {0}",
        "TRUNCATE {0} CASCADE",
        "LOCK TABLE {0} IN ACCESS SHARE MODE",
        "ALTER TABLE {0} ADD COLUMN more integer",
        "DROP TABLE {0} CASCADE",
        "GRANT SELECT ON {0} TO rowmint_sampler",
        "CREATE VIEW seen AS SELECT * FROM {0}",
    ],
)
def test_no_table_of_the_data_is_read_or_written(boundary: Boundary, table: str, statement: str):
    name = f"{DATA}.{table}"
    refused(boundary, statement.format(name, COLUMN.get(name, "version_num")))


@pytest.mark.parametrize("table", [*MODEL_TABLES, "alembic_version"])
def test_tables_of_the_models_are_read_and_not_written(boundary: Boundary, table: str):
    name = f"{MODELS}.{table}"
    attempt(boundary, f"SELECT * FROM {name}")
    for statement in (
        "INSERT INTO {0} DEFAULT VALUES",
        "UPDATE {0} SET {1} = {1}",
        "DELETE FROM {0}",
        "TRUNCATE {0} CASCADE",
        "SELECT * FROM {0} FOR UPDATE",
        "ALTER TABLE {0} ADD COLUMN more integer",
        "CREATE TRIGGER t BEFORE INSERT ON {0} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "DROP TABLE {0} CASCADE",
    ):
        refused(boundary, statement.format(name, COLUMN.get(name, "version_num")))


def test_future_tables_have_the_privileges_of_existing_ones(boundary: Boundary):
    with connected(boundary.trainer_url) as connection:
        for schema in (DATA, MODELS):
            connection.execute(f"CREATE TABLE {schema}.{YET_TO_COME} (value integer)")
            connection.execute(f"CREATE VIEW {schema}.{YET_TO_COME}_too AS SELECT * FROM {schema}.{YET_TO_COME}")
            connection.execute(f"CREATE SEQUENCE {schema}.{YET_TO_COME}_number")
    for name in (YET_TO_COME, f"{YET_TO_COME}_too"):
        refused(boundary, f"SELECT * FROM {DATA}.{name}")
        attempt(boundary, f"SELECT * FROM {MODELS}.{name}")
        for schema in (DATA, MODELS):
            refused(boundary, f"INSERT INTO {schema}.{name} VALUES (1)")
            refused(boundary, f"DELETE FROM {schema}.{name}")
    for schema in (DATA, MODELS):
        refused(boundary, f"SELECT nextval('{schema}.{YET_TO_COME}_number')")


@pytest.mark.parametrize(
    "statement",
    [
        f"CREATE TABLE {DATA}.t ()",
        f"CREATE TABLE {MODELS}.t ()",
        "CREATE TABLE public.t ()",
        "CREATE TEMPORARY TABLE t ()",
        "CREATE SCHEMA s",
        f"CREATE EXTENSION vector SCHEMA {MODELS}",
        "CREATE ROLE r",
        "CREATE DATABASE d",
        "SET ROLE rowmint_trainer",
        "SET ROLE postgres",
        "SET SESSION AUTHORIZATION rowmint_trainer",
        "GRANT rowmint_trainer TO rowmint_sampler",
        "ALTER ROLE rowmint_sampler SUPERUSER",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE rowmint_trainer IN SCHEMA {DATA} GRANT SELECT ON TABLES TO rowmint_sampler",
        "SELECT pg_read_file('postgresql.conf')",
        "SELECT pg_read_binary_file('PG_VERSION')",
        "SELECT pg_ls_dir('.')",
        "SELECT pg_stat_file('PG_VERSION')",
        "SELECT lo_creat(-1)",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT lo_export(1, '/tmp/rowmint-lo')",
        "COPY (SELECT 1) TO PROGRAM 'cat'",
        "COPY (SELECT 1) TO '/tmp/rowmint-copy'",
        f"COPY {MODELS}.models FROM PROGRAM 'true'",
        "SELECT * FROM pg_authid",
        "SELECT * FROM pg_statistic",
        "SELECT * FROM pg_user_mapping",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rowmint_trainer'",
        "ALTER SYSTEM SET log_statement = 'all'",
        "SET session_replication_role = replica",
    ],
)
def test_the_samplers_role_cannot_bypass_the_privileges_of_tables(boundary: Boundary, statement: str):
    # A database is made outside of transactions only, and another session must be there to be ended.
    with connected(boundary.trainer_url), connected(boundary.sampler_url) as connection:
        connection.autocommit = True
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement)


def test_what_the_planner_knows_of_the_data_is_hidden(boundary: Boundary):
    with connected(boundary.trainer_url) as connection:
        connection.execute(f"ANALYZE {DATA}.datasets")
        connection.execute(f"ANALYZE {MODELS}.models")
    seen = "SELECT DISTINCT schemaname FROM pg_stats WHERE schemaname LIKE 'rowmint%'"
    with connected(boundary.trainer_url) as connection:
        assert {schema for (schema,) in connection.execute(seen)} >= {DATA}
    with connected(boundary.sampler_url) as connection:
        assert {schema for (schema,) in connection.execute(seen)} <= {MODELS}


def test_what_others_ask_the_database_is_hidden(boundary: Boundary):
    with connected(boundary.trainer_url) as other, connected(boundary.sampler_url) as connection:
        other.execute("SELECT 'a cell of the data'")
        # By its number: a connection that an earlier test has closed may still be ending.
        requested = "SELECT query FROM pg_stat_activity WHERE usename = 'rowmint_trainer' AND pid = %s"
        assert connection.execute(requested, [other.info.backend_pid]).fetchall() == [("<insufficient privilege>",)]


def test_nothing_in_the_bucket_of_data_is_read_listed_or_written(boundary: Boundary):
    for key in boundary.data_keys:
        for attempted in (
            lambda key=key: obstore.get(boundary.data, key),
            lambda key=key: obstore.head(boundary.data, key),
            lambda key=key: obstore.get_range(boundary.data, key, start=0, length=1),
            lambda key=key: obstore.put(boundary.data, key, b"other", use_multipart=False),
            lambda key=key: obstore.delete(boundary.data, key),
            lambda key=key: obstore.copy(boundary.data, key, "copy"),
        ):
            assert denied(attempted)
    assert denied(lambda: keys_in(boundary.data))
    assert denied(lambda: obstore.put(boundary.data, "new", b"", use_multipart=False))
    assert denied(lambda: obstore.head(boundary.data, "not-there"))
    assert keys_in(boundary.owned[0]) == boundary.data_keys


def test_objects_of_the_bucket_of_models_are_read_and_not_written(boundary: Boundary):
    assert keys_in(boundary.models) == boundary.model_keys
    for key in boundary.model_keys:
        expected = obstore.get(boundary.owned[1], key).bytes().to_bytes()
        assert obstore.get(boundary.models, key).bytes().to_bytes() == expected
        assert denied(lambda key=key: obstore.put(boundary.models, key, b"other", use_multipart=False))
        assert denied(lambda key=key: obstore.delete(boundary.models, key))
        assert denied(lambda key=key: obstore.copy(boundary.models, key, "copy"))
        assert obstore.get(boundary.owned[1], key).bytes().to_bytes() == expected
    assert denied(lambda: obstore.put(boundary.models, "new", b"", use_multipart=False))
    assert denied(lambda: obstore.put(boundary.models, "large", bytes(6 << 20), use_multipart=True))
    assert keys_in(boundary.owned[1]) == boundary.model_keys


def denied(attempted: Any) -> bool:
    """Say whether the service refuses something as not allowed; what it allows is a failure."""
    with pytest.raises((BaseError, PermissionError)) as caught:
        attempted()
    return any(word in str(caught.value) for word in ("403 Forbidden", "AccessDenied"))
