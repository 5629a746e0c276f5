"""Settings of all tests."""

from hypothesis import settings

# The same examples in every run: a failure here is a failure anywhere. New ones are sought with
# `pytest --hypothesis-profile=default`.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
