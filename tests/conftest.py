"""Settings of all tests, their tiers, and the servers that some of them need: started when a test first needs them."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import delete

from rowmint.registry import migrate, open_registry
from rowmint.registry.engine import writing
from rowmint.registry.tables import metadata
from tests.durations.report import read_table
from tests.faults.golden_home import publish_golden
from tests.postgres_server import PostgresServer
from tests.swift_server import SwiftServer
from tests.tiers import DEFAULT, Tier, tier_of

TESTS = Path(__file__).parent
# The same examples in every run: a failure here is a failure anywhere. `make test-full` looks for new ones. How long an
# example takes says how busy the machine is, not whether the code is right.
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", UNTIMED, derandomize=True)
settings.register_profile("new-examples", UNTIMED)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tier",
        action="append",
        type=Tier,
        choices=list(Tier),
        help=f"run only tests of this tier (may be given several times); default: {' and '.join(DEFAULT)}",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of the requested tiers, files that take longest first.

    Workers take whole files in this order: an idle one takes the next, and a long one never comes last.
    """
    wanted = config.getoption("--tier") or DEFAULT
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        (kept if _tier(item) in wanted else left).append(item)
    config.hook.pytest_deselected(items=left)
    taken: dict[str, float] = {}
    for row in read_table():
        if row.tier in wanted:
            taken[row.file] = taken.get(row.file, 0.0) + row.seconds
    # Stable: within a file the order stays as it was drawn.
    files = {item.path: item.path.relative_to(TESTS.parent).as_posix() for item in kept}
    items[:] = sorted(kept, key=lambda item: (-taken.get(files[item.path], 0.0), files[item.path]))


def _tier(item: pytest.Item) -> Tier:
    callspec = getattr(item, "callspec", None)
    return tier_of(
        item.path.relative_to(TESTS),
        (marker.name for marker in item.iter_markers()),
        getattr(item, "fixturenames", ()),
        callspec.params.values() if callspec is not None else (),
    )


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
    """A home in which the golden models are published; no test may change it."""
    home = tmp_path_factory.mktemp("golden")
    publish_golden(home)
    return home
