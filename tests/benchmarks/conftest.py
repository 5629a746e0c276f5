"""Fixtures of the benchmarks: the services of the acceptance tests."""

from tests.acceptance.conftest import services, shared_services

__all__ = ["services", "shared_services"]
