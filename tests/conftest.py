"""Settings of all tests, and the servers that some of them need: one a session, started when a test first asks."""

from pathlib import Path

import pytest
from hypothesis import settings
from sqlalchemy import delete

from rowmint.registry import migrate, open_registry
from rowmint.registry.engine import writing
from rowmint.registry.tables import metadata
from tests.faults.golden_home import publish_golden
from tests.postgres_server import PostgresServer
from tests.swift_server import SwiftServer

# The same examples in every run: a failure here is a failure anywhere. New ones are sought with
# `pytest --hypothesis-profile=default`.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server. A test that stops it starts it again."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def postgres_url(postgres):
    """URL of an empty database."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="session")
def migrated_postgres(postgres):
    """URL of a database whose registry is migrated."""
    url = postgres.create_database()
    registry = open_registry(url)
    migrate(registry.engine)
    registry.close()
    return url


@pytest.fixture
def migrated_postgres_url(postgres, migrated_postgres):
    """URL of a database whose registry is migrated and empty: one for all tests, as to make one takes long."""
    postgres.disconnect(migrated_postgres)
    registry = open_registry(migrated_postgres)
    with writing(registry.engine) as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))
    registry.close()
    return migrated_postgres


@pytest.fixture(scope="session")
def swift():
    """An S3 service. A test that stops it starts it again."""
    server = SwiftServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def s3_bucket(swift):
    """An empty bucket: its URL and the options that open it."""
    return swift.create_bucket(), swift.options


@pytest.fixture(scope="session")
def golden_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the golden models are published; nobody may change it."""
    home = tmp_path_factory.mktemp("golden")
    publish_golden(home)
    return home
