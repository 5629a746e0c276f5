"""The hand-written pages name tests, settings, files and links that there are."""

import re

import pytest
import typer

from rowmint.cli.app import app
from rowmint.rpc.settings import ServiceSettings
from sampler_service.settings import SamplerSettings
from tests.docs import configuration, traceability
from tests.docs.pages import DOCS, ROOT, RUN_KINDS, pages, text
from trainer_service.settings import TrainerSettings

KNOWN = {f"ROWMINT_{name}".upper() for settings in (TrainerSettings, SamplerSettings) for name in settings.model_fields}
KNOWN |= {row[0].strip("`") for row in configuration.client_rows()} | {"ROWMINT_BENCH_DATA"}
RELIABILITY, SECURITY = (text(DOCS / f"{name}.md") for name in ("reliability", "security"))
FOLDERS = ("docs", "protos", "tests", "deploy", "shared", "trainer_service", "sampler_service")
PAGES = [*pages(), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
# The other two name what there was when an entry was written.
PRESENT = [page for page in PAGES if page.name not in {"decisions.md", "CHANGELOG.md"}]


def test_every_promise_and_no_other_is_listed_with_its_tests():
    held = traceability.held()
    assert set(held) == set(traceability.promised())
    assert [promise for promise, tests in held.items() if not tests] == []


@pytest.mark.parametrize("promise", traceability.held())
def test_a_test_that_holds_a_promise_exists(promise):
    assert [test for test in traceability.held()[promise] if not traceability.is_there(test)] == []


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_settings_that_are_named_exist(page):
    assert set(re.findall(r"ROWMINT_[A-Z_]+[A-Z]", text(page))) - KNOWN == set()


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    named = re.findall(
        r"`((?:docs|protos|tests|deploy|shared|trainer_service|sampler_service)/[\w./-]*\w)`", text(page)
    )
    links = re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text(page))
    missing = [name for name in named if not (ROOT / name).exists()]
    missing += [name for name in links if not (page.parent / name).exists()]
    assert missing == []


def test_names_that_link_to_a_file_are_defined_in_it():
    links = re.findall(r"\[`(\w+)`\]\(\.\./([\w./]+\.py)\)", text(DOCS / "architecture.md"))
    assert links
    defined = r"^ *(?:async )?(?:def|class) {0}\b|^{0}\b.* = "
    missing = [
        (name, path)
        for name, path in links
        if not (ROOT / path).exists() or not re.search(defined.format(name), text(ROOT / path), re.MULTILINE)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_block_that_is_marked_to_be_run_is_of_a_kind_that_is_run(page):
    marks = re.findall(r"<!-- run: ([\w-]+) -->\n```", text(page))
    assert set(marks) <= RUN_KINDS
    assert len(marks) == text(page).count("<!-- run: ")


def commands(page):
    """Return the `rowmint` commands that a page shows, in text and in blocks of code, as lists of words."""
    code = re.findall(r"`(rowmint [^`]+)`", text(page).replace("\n", " ").replace("  ", " "))
    fenced = re.findall(r"```sh\n(.*?)```", text(page), re.DOTALL)
    code += re.findall(
        r"(?:^|\| |=\S+ )(rowmint [a-z][^|>&#;\n]*)", re.sub("'[^'\n]*'", "QUOTED", "\n".join(fenced)), re.MULTILINE
    )
    return [line.split() for line in code]


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_commands_and_options_that_are_shown_exist(page):
    unknown = []
    for words in commands(page):
        command = typer.main.get_command(app)
        options = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
        options |= {"--help"}
        for word in words[1:]:
            if word.startswith("-"):
                unknown += [words] if word.partition("=")[0] not in options else []
            elif hasattr(command, "commands") and not word.isupper():
                if word not in command.commands:
                    unknown.append(words)
                    break
                command = command.commands[word]
                options |= {option for parameter in command.params for option in parameter.opts}
    assert unknown == []


@pytest.mark.parametrize("page", PRESENT, ids=lambda page: page.name)
def test_make_targets_that_are_named_exist(page):
    targets = set(re.findall(r"^([\w./-]+):", text(ROOT / "Makefile"), re.MULTILINE)) | {".venv/.dev"}
    assert set(re.findall(r"`make ([\w./-]+)", text(page))) - targets == set()


def test_every_limit_is_stated():
    limits = {name for name in KNOWN if name.startswith("ROWMINT_MAX_")} - {"ROWMINT_MAX_CONNECTION_AGE_SECONDS"}
    assert limits - set(re.findall(r"ROWMINT_[A-Z_]+", RELIABILITY)) == set()


def test_every_setting_of_authentication_is_stated():
    own = {f"ROWMINT_{name}".upper() for name in ServiceSettings.model_fields if not name.startswith("log_")}
    own |= {"ROWMINT_SIGNING_KEY", "ROWMINT_TRUSTED_KEYS"}
    stated = set(re.findall(r"ROWMINT_[A-Z_]+", SECURITY))
    assert own - stated - {"ROWMINT_LISTEN", "ROWMINT_METRICS_LISTEN"} == set()


def test_the_words_are_those_of_the_glossary():
    private = re.compile(r"gone on with|anew|nobody|whoever|\bmend", re.IGNORECASE)
    lines = [(page.name, line) for page in PAGES for line in text(page).splitlines()]
    assert [(name, line) for name, line in lines if private.search(re.sub(r"`[^`]*`", "", line))] == []


def test_decisions_have_four_parts():
    entries = re.split(r"^## ", text(DOCS / "decisions.md"), flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        assert re.match(r"\d{4}-\d\d-\d\d: \S", entry), entry.splitlines()[0]
        parts = re.findall(r"^\*\*(\w+)\.\*\*", entry, re.MULTILINE)
        assert parts == ["Status", "Context", "Decision", "Consequences"], entry.splitlines()[0]
