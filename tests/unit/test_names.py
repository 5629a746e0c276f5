"""Names: what is formatted parses back, and whatever is malformed is refused by the field it stands in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowmint.errors import InvalidFieldError
from rowmint.names import (
    DatasetName,
    ModelName,
    ModelVersionName,
    ModelVersionRef,
    ProjectName,
    TrainingJobName,
    validate_id,
    validate_request_id,
)

IDS = st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True)
VERSIONS = st.integers(1, 10**18 - 1)
PROJECTS = st.builds(ProjectName, IDS)
DATASETS = st.builds(DatasetName, IDS, IDS)
JOBS = st.builds(TrainingJobName, IDS, IDS)
MODELS = st.builds(ModelName, IDS, IDS)
MODEL_VERSIONS = st.builds(ModelVersionName, IDS, IDS, VERSIONS)
REFERENCES = st.one_of(
    st.builds(ModelVersionRef, MODELS, version=VERSIONS),
    st.builds(ModelVersionRef, MODELS, alias=IDS),
    st.builds(ModelVersionRef, MODELS, digest=st.binary(min_size=32, max_size=32)),
)
CLASSES = (ProjectName, DatasetName, TrainingJobName, ModelName, ModelVersionName, ModelVersionRef)
BAD_IDS = ("", "A", "1a", "-a", "a_b", "a.b", "a b", "a" * 64, "ä", "a\n", "a\0", "a/b", "a@b", "..")
FORMS = {
    ProjectName: ("projects/{}",),
    DatasetName: ("projects/{}/datasets/d", "projects/p/datasets/{}"),
    TrainingJobName: ("projects/{}/trainingJobs/j", "projects/p/trainingJobs/{}"),
    ModelName: ("projects/{}/models/m", "projects/p/models/{}"),
    ModelVersionName: ("projects/{}/models/m/versions/1", "projects/p/models/{}/versions/1"),
    ModelVersionRef: ("projects/{}/models/m@best", "projects/p/models/{}@best", "projects/p/models/m@{}"),
}


@given(st.one_of(PROJECTS, DATASETS, JOBS, MODELS, MODEL_VERSIONS, REFERENCES))
def test_a_formatted_name_parses_back(name):
    assert type(name).parse(str(name)) == name


@given(st.one_of(PROJECTS, DATASETS, JOBS, MODELS, MODEL_VERSIONS))
def test_a_name_has_one_spelling(name):
    for parser in CLASSES:
        if parser is type(name) or parser is ModelVersionRef:
            continue
        with pytest.raises(InvalidFieldError):
            parser.parse(str(name))


@given(MODEL_VERSIONS)
def test_a_version_is_read_by_its_own_name_too(name):
    reference = ModelVersionRef.parse(str(name))
    assert reference == ModelVersionRef(name.parent, version=name.version)
    assert str(reference) == str(name)


def test_a_bare_model_stands_for_its_latest_version():
    reference = ModelVersionRef.parse("projects/p/models/m")
    assert reference == ModelVersionRef(ModelName("p", "m"), alias="latest")
    assert str(reference) == "projects/p/models/m@latest"


@pytest.mark.parametrize("bad", BAD_IDS)
@pytest.mark.parametrize(("parser", "form"), [(parser, form) for parser, forms in FORMS.items() for form in forms])
def test_a_malformed_id_names_the_field(parser, form, bad):
    with pytest.raises(InvalidFieldError) as caught:
        parser.parse(form.format(bad), "some.field")
    assert [violation.field for violation in caught.value.violations] == ["some.field"]
    assert caught.value.message.startswith("some.field: ")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "p",
        "projects",
        "projects/",
        "/projects/p",
        "projects/p/",
        "Projects/p",
        "projects/p/models",
        "projects/p/models/m/",
        "projects/p/models/m/versions",
        "projects/p/models/m/versions/",
        "projects/p/models/m/versions/0",
        "projects/p/models/m/versions/01",
        "projects/p/models/m/versions/-1",
        "projects/p/models/m/versions/1.0",
        "projects/p/models/m/versions/\u0661",
        "projects/p/models/m/versions/1000000000000000000",
        "projects/p/models/m@",
        "projects/p/models/m@sha256:",
        "projects/p/models/m@sha256:" + "0" * 63,
        "projects/p/models/m@sha256:" + "0" * 65,
        "projects/p/models/m@sha256:" + "A" * 64,
        "projects/p/models/m@best/versions/1",
        "projects/p/models/m/versions/1@best",
        "projects/p/datasets/d/x",
        "projects/p/trainingjobs/j",
        " projects/p",
        "projects/p\n",
    ],
)
@pytest.mark.parametrize("parser", CLASSES)
def test_a_malformed_name_names_the_field(parser, text):
    with pytest.raises(InvalidFieldError) as caught:
        parser.parse(text, "request.name")
    assert [violation.field for violation in caught.value.violations] == ["request.name"]


@pytest.mark.parametrize("alias", ["projects/p/models/m@best", "projects/p/models/m@sha256:" + "0" * 64])
def test_an_alias_is_not_a_version_name(alias):
    with pytest.raises(InvalidFieldError, match="versions/"):
        ModelVersionName.parse(alias)


@given(IDS)
def test_an_id_is_returned_as_it_is(text):
    assert validate_id(text, "dataset_id") == text


@pytest.mark.parametrize("bad", BAD_IDS)
def test_a_bad_id_names_the_field(bad):
    with pytest.raises(InvalidFieldError) as caught:
        validate_id(bad, "dataset_id")
    assert [violation.field for violation in caught.value.violations] == ["dataset_id"]


def test_a_request_id_is_a_uuid_or_none() -> None:
    for text in ("", "123e4567-e89b-42d3-a456-426614174000", "123E4567-E89B-42D3-A456-426614174000"):
        assert validate_request_id(text) == text
    for bad in ("again", "123e4567e89b42d3a456426614174000", "123e4567-e89b-42d3-a456-42661417400g", " "):
        with pytest.raises(InvalidFieldError, match=r"^request_id: "):
            validate_request_id(bad)
