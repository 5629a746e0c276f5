"""What every family's fitter must do, whatever it fits: the families of the list, and the one of the tests."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.families.exemplars.family import EXEMPLARS
from tests.tables_to_fit import FAMILIES, SMALL_EXPORT, encode_rows, full_table
from trainer_service.config import TrainingConfig
from trainer_service.fitting import FitContext
from trainer_service.fitting.encoding.encoded_table import EncodedRows, EncodedTable
from trainer_service.fitting.families import FAMILIES as LISTED
from trainer_service.fitting.families import Family, FamilyConfig
from trainer_service.fitting.fitter import Fitter, IterativeFitter
from trainer_service.fitting.options import Pieces

EVERY = (*LISTED, EXEMPLARS)
ITERATIVE = [family for family in EVERY if family.iterative]
STEPS = 4


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Pieces | None, EncodedTable]:
    """One table in every encoding, by how ordered columns are cut into pieces."""
    some = full_table().only("city", "state", "age", "noise", "same")
    config = TrainingConfig(next(iter(FAMILIES.values())), seed=3)
    return {
        pieces: encode_rows(some, config, tmp_path_factory.mktemp("pieces"), pieces=pieces)
        for pieces in {family.pieces for family in EVERY}
    }


def own_config(family: Family) -> FamilyConfig:
    return FAMILIES.get(family.name, family.config())


def make(family: Family, tables: Mapping[Pieces | None, EncodedTable], folder: Path, seed: int = 3) -> Any:
    return family.make_fitter(tables[family.pieces], own_config(family), FitContext(folder, seed=seed))


def raw(arrays: Mapping[str, NDArray[Any]] | Sequence[NDArray[Any]]) -> list[tuple[str, bytes]]:
    named = arrays.items() if isinstance(arrays, Mapping) else ((str(place), one) for place, one in enumerate(arrays))
    return [(name, array.tobytes()) for name, array in named]


def same_rows(one: EncodedRows, other: EncodedRows) -> bool:
    return raw([one.choices, one.alpha]) == raw([other.choices, other.alpha])


def exported(fitter: Fitter) -> tuple[Any, list[tuple[str, bytes]]]:
    network = fitter.export(SMALL_EXPORT)
    return dict(network.body), raw(network.arrays)


@pytest.mark.parametrize("family", EVERY, ids=lambda family: family.name)
def test_an_export_is_a_function_of_table_configuration_and_seed(
    family: Family, tables: Mapping[Pieces | None, EncodedTable], tmp_path: Path
) -> None:
    made = []
    for _ in range(2):
        fitter = make(family, tables, tmp_path)
        if family.iterative:
            fitter.step(0)
        made.append(exported(fitter))
        assert exported(fitter) == made[-1]
    assert made[0] == made[1]
    assert {array.dtype.kind for array in fitter.export(SMALL_EXPORT).arrays.values()} <= set("iuf")


@pytest.mark.parametrize("family", ITERATIVE, ids=lambda family: family.name)
def test_a_fit_is_resumed_from_any_state_as_if_it_had_never_stopped(
    family: Family, tables: Mapping[Pieces | None, EncodedTable], tmp_path: Path
) -> None:
    whole = make(family, tables, tmp_path)
    states, losses = [], []
    for number in range(STEPS):
        states.append(whole.state())
        losses.append(whole.step(number))
    for begun in range(STEPS):
        resumed = make(family, tables, tmp_path)
        resumed.load_state(states[begun])
        assert raw(resumed.state()) == raw(states[begun])
        assert [resumed.step(number) for number in range(begun, STEPS)] == losses[begun:]
        assert raw(resumed.state()) == raw(whole.state())
        assert exported(resumed) == exported(whole)


@pytest.mark.parametrize("family", ITERATIVE, ids=lambda family: family.name)
def test_losses_have_names_and_are_numbers(
    family: Family, tables: Mapping[Pieces | None, EncodedTable], tmp_path: Path
) -> None:
    fitter = make(family, tables, tmp_path)
    found = [fitter.step(number) for number in range(STEPS)]
    assert {tuple(losses) for losses in found} == {tuple(found[0])} != {()}
    assert all(math.isfinite(value) for losses in found for value in losses.values())


@pytest.mark.parametrize("family", ITERATIVE, ids=lambda family: family.name)
def test_rows_are_those_of_the_weights_and_change_nothing(
    family: Family, tables: Mapping[Pieces | None, EncodedTable], tmp_path: Path
) -> None:
    fitter = make(family, tables, tmp_path)
    fitter.step(0)
    before, rows = raw(fitter.state()), fitter.sample(64)
    table = tables[family.pieces]
    assert rows.choices.shape == (64, len(table.codecs))
    assert rows.alpha.shape == (64, sum(codec.scalar for codec in table.codecs))
    assert rows.alpha.dtype == np.float32
    assert all((rows.choices[:, column] < codec.choices).all() for column, codec in enumerate(table.codecs))
    assert same_rows(fitter.sample(64), rows)
    fitter.export(SMALL_EXPORT)
    assert raw(fitter.state()) == before


@pytest.mark.parametrize("family", ITERATIVE, ids=lambda family: family.name)
def test_weights_are_restored(family: Family, tables: Mapping[Pieces | None, EncodedTable], tmp_path: Path) -> None:
    fitter: IterativeFitter = make(family, tables, tmp_path)
    fitter.step(0)
    weights, rows, before = fitter.weights(), fitter.sample(64), exported(fitter)
    kept = raw(weights)
    for number in range(1, STEPS):
        fitter.step(number)
    assert raw(weights) == kept  # a copy: no step moves it
    assert exported(fitter) != before
    fitter.restore(weights)
    assert raw(fitter.weights()) == kept
    assert same_rows(fitter.sample(64), rows)
    assert exported(fitter) == before


@pytest.mark.parametrize("family", ITERATIVE, ids=lambda family: family.name)
def test_a_state_that_lacks_something_is_refused(
    family: Family, tables: Mapping[Pieces | None, EncodedTable], tmp_path: Path
) -> None:
    fitter = make(family, tables, tmp_path)
    fitter.step(0)
    for name in fitter.state():
        lacking = {other: array for other, array in fitter.state().items() if other != name}
        with pytest.raises(KeyError):
            make(family, tables, tmp_path).load_state(lacking)


@pytest.mark.parametrize("family", ITERATIVE, ids=lambda family: family.name)
def test_the_number_of_steps_is_what_the_configuration_says(
    family: Family, tables: Mapping[Pieces | None, EncodedTable], tmp_path: Path
) -> None:
    config = own_config(family)
    fitter = make(family, tables, tmp_path)
    assert fitter.steps_per_epoch == config.steps_per_epoch(tables[family.pieces].rows)
    assert fitter.epochs == getattr(config, "epochs", fitter.epochs)
    assert fitter.rows_per_step >= 1
