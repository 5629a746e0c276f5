"""The frozen models give the frozen streams, on every processor and with every kernel."""

import json

import pytest

from rowmint.artifact import read_model
from rowmint.synthesizer import choose_kernel
from tests.golden.make import HERE, MODELS, artifact, stored
from tests.golden.streams import QUICK, all_digests


@pytest.mark.parametrize("family", MODELS)
def test_the_maker_makes_the_frozen_files(family):
    made = artifact(family)
    assert (made.manifest, made.weights) == stored(family)


@pytest.mark.parametrize("family", MODELS)
def test_the_files_stay_readable(family):
    model = read_model(*stored(family), choose_kernel("numpy"))
    assert model.digest == artifact(family).model_digest


def test_streams_are_the_frozen_ones():
    expected = json.loads((HERE / "digests.json").read_text(encoding="utf-8"))
    assert expected == all_digests("auto")


@pytest.mark.parametrize("kernel", ["numpy", "onnxruntime"])
def test_the_kernel_does_not_matter(kernel):
    expected = json.loads((HERE / "digests.json").read_text(encoding="utf-8"))
    found = all_digests(kernel, quick=True)
    assert found == {name: expected[name] for name in QUICK}
