"""What `make audit` finds, and what it accepts."""

import json

import pytest

from tests.supply.advisories import AwayError, weaknesses
from tests.supply.bom import problems


def component(name, version, *licences):
    declared = [
        {"expression": one} if " " in one and "::" not in one else {"license": {"name": one}} for one in licences
    ]
    return {"name": name, "version": version, "licenses": declared}


@pytest.mark.parametrize(
    "licence",
    [
        "MIT",
        "License :: OSI Approved :: Apache Software License",
        "Apache-2.0 OR BSD-2-Clause",
        "GPL-3.0-only OR MIT",
        "Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSD-3-Clause",
        "MIT License\n\nPermission is hereby granted",
    ],
)
def test_a_free_licence_passes(licence):
    assert problems({"components": [component("thing", "1", licence)]}, ["thing>=1"]) == []


@pytest.mark.parametrize(
    "licences", [["GPL-3.0-only"], ["AGPL-3.0"], ["MIT AND GPL-2.0-only"], ["MIT", "BUSL-1.1"], [], ["Proprietary"]]
)
def test_any_other_has_to_be_accounted_for(licences):
    (found,) = problems({"components": [component("thing", "1", *licences)]}, [])
    assert found.startswith("thing 1: its licence ")
    assert problems({"components": [component("SDV", "1", *licences)]}, []) == []


def test_what_is_required_is_in_the_bill():
    bom = {"components": [component("Google_CRC32C", "1.7", "MIT")]}
    assert problems(bom, ["google-crc32c>=1.7", "absent[extra]>=2"]) == ["absent is required, and not in the bill"]


def test_a_release_with_a_known_weakness_is_found_without_a_network():
    bom = {"components": [component("torch", "2.9.1+cpu", "BSD-3-Clause"), component("pyjwt", "2.12.0", "MIT")]}
    assert problems(bom, []) == ["torch 2.9.1+cpu has CVE-2026-24747, fixed in 2.10.0"]


def test_weaknesses_that_pip_audit_finds_are_reported():
    report = {
        "dependencies": [
            {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]},
            {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]},
            {"name": "c", "skip_reason": "not on PyPI"},
            {"name": "rowmint", "skip_reason": "not on PyPI"},
        ]
    }
    assert weaknesses(json.dumps(report), "", 1) == [
        "c could not be looked up: not on PyPI",
        "a 1 has PYSEC-1; fixed in 1.1",
        "b 2 has PYSEC-2; fixed in no release",
    ]


def test_an_index_without_advisories_counts_as_unreachable():
    skipped = {"name": "a", "skip_reason": "Dependency not found on PyPI and could not be audited: a (1)"}
    with pytest.raises(AwayError):
        weaknesses(json.dumps({"dependencies": [skipped]}), "No known vulnerabilities found", 0)


def test_an_unreachable_advisory_service_is_distinct_from_other_failures():
    with pytest.raises(AwayError):
        weaknesses("", "requests.exceptions.ConnectionError: Max retries exceeded", 1)
    with pytest.raises(RuntimeError, match="pip-audit ended with 2: no such option"):
        weaknesses("", "no such option", 2)
