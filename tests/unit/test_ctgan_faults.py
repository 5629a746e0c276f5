"""Faults found in sdv and the ctgan package (shared/FINDINGS.md) that concern fitting: ours has none of them."""

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from rowmint.codecs import NumericCodec
from rowmint.conditions import AnyOf, Predicate, canonical
from rowmint.sampling.plan import compile_plan
from rowmint.sampling.rows import RowSource
from rowmint.synthesizer import choose_kernel
from rowmint.synthesizer.exact import tables
from rowmint.synthesizer.exact.network import load_network
from tests.tables_to_fit import (
    CTGAN,
    FAMILIES,
    SMALL_EXPORT,
    TVAE,
    TableToFit,
    encode_rows,
    fit_table,
    full_table,
    load,
    sample,
)
from trainer_service.config import TrainingConfig
from trainer_service.fitting import FitContext, loop
from trainer_service.fitting.encoding.encoded_table import EncodedTable
from trainer_service.fitting.families import family_named
from trainer_service.fitting.families.ctgan.fitter import CtganFitter
from trainer_service.fitting.keys import torch_seed
from trainer_service.fitting.monitoring.progress import FitEvent

TABLE = full_table().only("city", "state", "paid", "age", "noise")
NETWORKS = ["ctgan", "tvae"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(family: Any, **fields: Any) -> TrainingConfig:
    return TrainingConfig(**{"family": family, "seed": 4, "threads": 1, **fields})


def encoded(folder: Path, table: TableToFit = TABLE) -> EncodedTable:
    wanted = config(CTGAN)
    return encode_rows(table, wanted, folder)


def ctgan(folder: Path, **fields: Any) -> CtganFitter:
    wanted = dataclasses.replace(CTGAN, **fields)
    return CtganFitter(encoded(folder), wanted, FitContext(folder, seed=4))


def fitter_of(family: str, folder: Path) -> Any:
    folder.mkdir()
    return family_named(family).make_fitter(encoded(folder), FAMILIES[family], FitContext(folder, seed=4))


def state_of(fitter: Any) -> list[np.ndarray]:
    """Return a copy of everything that training moves: weights, their average, batch normalisation's statistics."""
    networks = (
        [fitter.generator, fitter._critic] if isinstance(fitter, CtganFitter) else [fitter._encoder, fitter.decoder]
    )
    tensors = [tensor for network in networks for tensor in network.state_dict().values()]
    return [tensor.numpy().copy() for tensor in tensors] + fitter.weights()


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert [array.tobytes() for array in found] == [array.tobytes() for array in expected]


def test_a_category_of_the_second_discrete_column_can_be_set(tmp_path: Path) -> None:
    """`ctgan.sample` sets the bit of another column for every discrete column but the first."""
    fitter = ctgan(tmp_path, generator_dim=(32,), generator_lr=5e-3)
    for number in range(150):
        fitter.step(number)
    network, conditions, table = fitter.export(SMALL_EXPORT), fitter._conditions, fitter._table
    assert conditions is not None
    assert sorted(set(conditions.column.tolist())) == [0, 1, 2]
    kernel = choose_kernel("numpy")
    exact = load_network(network.body, network.arrays, concatenate=True, conditions=len(conditions), kernel=kernel)
    codes = fitter.folded(400)[2].codes[:, : exact.noise_width]
    blocks, _ = table.positions()
    for column in (1, 2):
        own = np.flatnonzero(conditions.column == column)
        block = np.arange(blocks[column].start, blocks[column].stop)
        shares = []
        for condition in own:
            activations = exact.hidden(codes, np.full(len(codes), condition))
            masses = np.exp(exact.head(block)(activations) / tables.LOGIT_UNIT)
            shares.append((masses / masses.sum(axis=0)).mean(axis=1)[conditions.choice[own]])
        # Of all condition vectors on the column it is a choice's own that raises it most.
        assert np.argmax(shares, axis=0).tolist() == list(range(len(own)))
        assert (np.diag(shares) > 2 * (np.sum(shares, axis=0) - np.diag(shares)) / (len(own) - 1)).all()


@pytest.mark.parametrize(("column", "value"), [("state", "bad"), ("paid", True)])
def test_all_rows_have_the_category_that_is_requested(column: str, value: Any, tmp_path: Path) -> None:
    """SDV's conditions are a rejection loop that may deliver fewer rows than requested."""
    model = load(fit_table(TABLE, config(CTGAN), tmp_path))
    conditions = canonical([Predicate(column, AnyOf((value,)))], model.schema)
    assert model.synthesizer.conditioned_column(conditions) == column
    plan = compile_plan(model.digest, model.synthesizer, conditions)
    source = RowSource(model, plan, 1, [column])
    codes = np.concatenate([source.block(number, plan.block_size).columns[column].values for number in range(2)])
    expected = model.schema.column(column).domain.categories.index(value)
    assert codes.tolist() == [expected] * 2 * plan.block_size


def test_rare_categories_are_as_frequent_as_in_the_data(tmp_path: Path) -> None:
    """Unconditional CTGAN draws its condition from log-frequencies: the rarest come out far too often."""
    cells: Any = ["common"] * 1900 + ["rare"] * 80 + ["rarest"] * 20
    whole = full_table(2000)
    table = TableToFit(
        {"city": cells, "state": cells[::-1], "age": whole.cells["age"]}, whole.only("city", "state", "age").schema
    )
    wanted = dataclasses.replace(CTGAN, batch_size=100, epochs=2)
    rows = sample(load(fit_table(table, config(wanted), tmp_path)), 20_000)
    for name in ("city", "state"):
        shares = [rows[name].count(value) / 20_000 for value in ("common", "rare", "rarest")]
        # By log-frequencies they would be .51, .29 and .2.
        assert shares == pytest.approx([0.95, 0.04, 0.01], abs=0.006)


@pytest.mark.parametrize("family", NETWORKS)
def test_sampling_does_not_change_the_model(family: str, tmp_path: Path) -> None:
    """`sample` never leaves training mode: it moves the running statistics of batch normalisation."""
    fitter = fitter_of(family, tmp_path / "own")
    for number in range(5):
        fitter.step(number)
    before = state_of(fitter)
    first, second = fitter.sample(100), fitter.sample(100)
    network, again = fitter.export(SMALL_EXPORT), fitter.export(SMALL_EXPORT)
    assert_same([second.choices, second.alpha], [first.choices, first.alpha])
    assert_same(list(again.arrays.values()), list(network.arrays.values()))  # type: ignore[arg-type]
    assert_same(state_of(fitter), before)
    # Nor does it change what is learned afterwards.
    other = fitter_of(family, tmp_path / "other")
    for number in range(6):
        other.step(number)
    fitter.step(5)
    assert_same(state_of(fitter), state_of(other))


@pytest.mark.parametrize("family", NETWORKS)
def test_a_row_does_not_depend_on_the_rows_made_with_it(family: str, tmp_path: Path) -> None:
    """In training mode batch normalisation couples a row to its batch."""
    model = load(fit_table(TABLE, config(FAMILIES[family]), tmp_path))
    plan = compile_plan(model.digest, model.synthesizer, ())
    source = RowSource(model, plan, 1, ["age", "city"])
    few, many = (source.block(0, rows).columns for rows in (3, plan.block_size))
    for name in ("age", "city"):
        assert few[name].values.tolist() == many[name].values[:3].tolist()


@pytest.mark.parametrize("family", NETWORKS)
def test_the_global_generators_are_left_alone(family: str, tmp_path: Path) -> None:
    """Seeding swaps the process' generators of numpy and torch; ours seeds torch once, for the first weights."""
    ours = fitter_of(family, tmp_path / "own")
    np.random.seed(1)  # noqa: NPY002
    random.seed(2)
    torch.manual_seed(3)
    before = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    expected = fitter_of(family, tmp_path / "expected")
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # noqa: NPY002
    assert torch.initial_seed() == torch_seed(4, "weights")
    drawn = torch.get_rng_state()
    for number in range(3):
        expected.step(number)
    expected.sample(50)
    expected.export(SMALL_EXPORT)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), drawn)
    for number in range(3):  # whatever others do to them meanwhile
        np.random.seed(number)  # noqa: NPY002
        torch.manual_seed(number)
        ours.step(number)
    assert_same(state_of(ours), state_of(expected))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_file_is_data_and_holds_nothing_of_the_rows(family: str, tmp_path: Path) -> None:
    """A saved model is a pickle, and in it are the indices of the training rows."""
    names = ("city", "state", "grade", "same")
    once = full_table(600)  # each value in enough rows for a bin of its own
    twice = TableToFit({name: once.cells[name] * 2 for name in names}, once.only(*names).schema)
    shapes = []
    for table in (once.only(*names), twice):
        artifact = fit_table(table, config(FAMILIES[family]), tmp_path)
        arrays = safetensors.numpy.load(artifact.weights)
        header = 8 + int.from_bytes(artifact.weights[:8], "little")
        assert set(json.loads(artifact.weights[8:header])) - {"__metadata__"} == set(arrays)
        # Numbers behind a JSON header and no other byte.
        assert len(artifact.weights) == header + sum(array.nbytes for array in arrays.values())
        assert {array.dtype.kind for array in arrays.values()} <= set("iuf")
        json.loads(artifact.manifest)
        shapes.append({name: array.shape for name, array in arrays.items()})
    # An array of rows would have grown with them.
    assert shapes[0] == shapes[1]


def test_the_critics_step_leaves_the_generator_alone(tmp_path: Path) -> None:
    """The critic's step goes back through the generator for nothing: the rows it made are not detached."""
    fitter = ctgan(tmp_path)
    fitter.step(0)
    before = fitter._weights.weights.clone(), fitter._weights.gradient.clone()
    critic = fitter._judge._parameters.weights.clone()
    fitter._make_rows()
    fitter._judge.loss(fitter._packs(fitter._seen))
    fitter._critic_steps.step()
    assert not torch.equal(fitter._judge._parameters.weights, critic)
    assert torch.equal(fitter._weights.weights, before[0])
    assert torch.equal(fitter._weights.gradient, before[1])
    assert not fitter._seen.requires_grad


def test_the_generators_step_leaves_the_critic_alone(tmp_path: Path) -> None:
    fitter = ctgan(tmp_path)
    before = fitter._weights.weights.clone()
    chosen, outputs = fitter._make_rows()
    fitter._judge.loss(fitter._packs(fitter._seen))
    critic = fitter._judge._parameters
    expected = critic.weights.clone(), critic.gradient.clone()
    fitter._step_generator(chosen, outputs)
    assert not torch.equal(fitter._weights.weights, before)
    assert torch.equal(critic.weights, expected[0])
    assert torch.equal(critic.gradient, expected[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_missing_numbers_are_learned(family: str, tmp_path: Path) -> None:
    """Missing cells of continuous columns are refused by ctgan and imputed by SDV."""
    table = full_table(2000).only("noise", "gain", "instant", "city")
    rows = sample(load(fit_table(table, config(FAMILIES[family]), tmp_path)), 10_000)
    for name in ("noise", "gain", "instant"):
        share = table.cells[name].count(None) / 2000
        assert share > 0.05
        assert rows[name].count(None) / 10_000 == pytest.approx(share, abs=0.025)


@pytest.mark.parametrize("family", NETWORKS)
def test_losses_of_an_epoch_are_those_of_all_its_batches(family: str, tmp_path: Path) -> None:
    """Only the last batch's loss of an epoch is kept; TVAE's cannot be had at all."""
    fitter = fitter_of(family, tmp_path / "own")
    fitter.epochs = 3
    steps: list[dict[str, float]] = []
    step = fitter.step

    def kept(number: int) -> dict[str, float]:
        steps.append(step(number))
        return steps[-1]

    fitter.step = kept
    events: list[FitEvent] = []
    history = loop.run(fitter, FitContext(tmp_path, 4, on_event=events.append))
    size = fitter.steps_per_epoch
    assert size > 1
    for name, found in history.losses.items():
        expected = [np.mean([taken[name] for taken in steps[start : start + size]]) for start in (0, size, 2 * size)]
        assert found == pytest.approx(expected, rel=1e-12)
        assert found != [taken[name] for taken in steps[size - 1 :: size]]
        assert [event.losses[name] for event in events] == found


def test_rows_are_held_as_codes(tmp_path: Path) -> None:
    """Training data is a float64 one-hot matrix."""
    table = encoded(tmp_path)
    assert isinstance(table.choices, np.memmap)
    assert table.choices.dtype == np.uint8
    assert table.choices.nbytes + table.alpha.nbytes < 0.1 * 8 * table.rows * table.width


def test_a_column_of_few_values_has_no_mixture(tmp_path: Path) -> None:
    """A Bayesian mixture is fitted to every continuous column on all rows, however few values it has."""
    table = full_table().only("age", "city")
    table.cells["age"] = [18 + index % 7 for index in range(300)]
    (codec, _) = encoded(tmp_path, table).codecs
    assert isinstance(codec, NumericCodec)
    assert (len(codec.centers), len(codec.points)) == (0, 7)


def test_the_same_seed_gives_the_same_fit_and_another_another(tmp_path: Path) -> None:
    for family in (CTGAN, TVAE):
        one, again = (fit_table(TABLE, config(family), tmp_path).weights_digest for _ in range(2))
        assert one == again != fit_table(TABLE, config(family, seed=5), tmp_path).weights_digest
