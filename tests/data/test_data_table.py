"""Tables of scores: reading accuracies, what is wrong with a file, generating, and the table as a
source of rewards.
"""

import functools
import gzip
import pathlib
import pickle
import sys
import types

import jax
import numpy as np
import pytest

from nas.data import table as tables
from nas.data.table import COLUMNS, DATA_SETS, SPACE
from nas.errors import UserError
from nas.spaces.recurrent import RecurrentSpace
from nas.supernets.table import table_reward

BENCHMARK = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "nasbench201.csv.gz"
EVERY = SPACE.every()
COUNT = 15_625
TEXTS = [SPACE.format(row) for row in EVERY]


def accuracy_of(index, column):
    """A number that tells rows and columns apart."""
    return round(index % 97 + column / 8, 3)


def lines():
    """A valid table in an order of its own, header first."""
    return list(_lines())


@functools.cache
def _lines():
    rows = np.random.default_rng(0).permutation(COUNT)
    values = (",".join(str(accuracy_of(row, c)) for c in range(len(COLUMNS))) for row in rows)
    return [
        ",".join(["architecture", *COLUMNS]),
        *(f"{TEXTS[row]},{value}" for row, value in zip(rows, values, strict=True)),
    ]


def written(tmp_path, rows, name="table.csv"):
    path = tmp_path / name
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def told(path):
    with pytest.raises(UserError) as error:
        tables.read_table(path)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(path))
    return str(error.value)


# Reading.


def test_a_table_is_read_into_the_order_of_the_space(tmp_path):
    table = tables.read_table(written(tmp_path, lines()))
    assert set(table.scores) == {
        (data_set, split) for data_set in DATA_SETS for split in ("val", "test")
    }
    for c, column in enumerate(COLUMNS.values()):
        expected = np.array([accuracy_of(row, c) for row in range(COUNT)], np.float32)
        np.testing.assert_array_equal(table.scores[column], expected)
    assert len(np.unique(table.classes)) == 5390


def test_columns_in_another_order_with_an_index(tmp_path):
    names = [
        "imagenet-val",
        "architecture",
        "cifar10-test",
        "index",
        "cifar10-val",
        "cifar100-val",
        "imagenet-test",
        "cifar100-test",
    ]
    rows = [",".join(names)] + [f"7,{text},2,{i},3,4,5,6" for i, text in enumerate(TEXTS)]
    table = tables.read_table(written(tmp_path, rows))
    assert {column: set(values) for column, values in table.scores.items()} == {
        ("imagenet", "val"): {7.0},
        ("cifar10", "test"): {2.0},
        ("cifar10", "val"): {3.0},
        ("cifar100", "val"): {4.0},
        ("imagenet", "test"): {5.0},
        ("cifar100", "test"): {6.0},
    }


def test_what_is_written_is_read(tmp_path):
    table = tables.synthetic_table(3, 0.5)
    tables.write_table(table, tmp_path / "table.csv.gz")
    again = tables.read_table(tmp_path / "table.csv.gz")
    for column in COLUMNS.values():
        np.testing.assert_allclose(again.scores[column], table.scores[column], rtol=0, atol=6e-5)


def test_the_benchmarks_table():
    if not BENCHMARK.exists():
        pytest.skip(f"needs the table of NAS-Bench-201 at {BENCHMARK}")
    table = tables.read_table(BENCHMARK)
    text = (
        ""
        "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    )
    index = SPACE.index(SPACE.parse(text))  # the first line of the file
    assert {
        column: float(values[index]) for column, values in table.scores.items()
    } == pytest.approx(
        {
            ("cifar10", "test"): 69.55,
            ("cifar10", "val"): 63.364,
            ("cifar100", "test"): 31.26,
            ("cifar100", "val"): 31.84,
            ("imagenet", "test"): 17.0,
            ("imagenet", "val"): 18.4667,
        },
        abs=1e-5,
    )
    nothing = SPACE.index(np.zeros(6, int))
    assert (
        table.scores["cifar10", "test"][nothing] == 10
    )  # a cell that computes nothing guesses one of ten
    # Within classes accuracies differ by noise: far less than over all architectures.
    values = table.scores["cifar10", "test"]
    assert np.std(values - table.class_mean("cifar10", "test")) < np.std(values) / 10


def test_class_means_by_hand():
    values = np.zeros(COUNT, np.float32)
    values[:4] = 1, 2, 6, 8
    classes = np.concatenate([[2, 1, 2, 0], np.full(COUNT - 4, 3)])
    table = tables.ScoreTable(SPACE, {("cifar10", "val"): values}, classes, tables.POINTS)
    assert table.different == 4 and table.data_sets == ("cifar10",)
    assert table.class_mean("cifar10", "val")[:5].tolist() == [3.5, 2, 3.5, 8, 0]


# What is wrong with a file.


def test_no_such_file(tmp_path):
    assert "no such file; a table is a CSV file with the columns architecture, cifar10-val" in told(
        tmp_path / "none.csv"
    )


def test_a_folder(tmp_path):
    assert "directory" in told(tmp_path)


@pytest.mark.parametrize(
    ("header", "got"),
    [
        ("architecture,accuracy", "got architecture, accuracy"),
        (",".join(["architecture", *COLUMNS, "cifar10-train"]), "cifar10-train"),
        (",".join(["architecture", *COLUMNS, "cifar10-val"]), "columns must be"),
        (",".join(COLUMNS), "columns must be architecture"),
        ("", "got none"),
    ],
)
def test_wrong_columns(tmp_path, header, got):
    message = told(written(tmp_path, [header]))
    assert "columns must be architecture, cifar10-val" in message and got in message


def test_missing_rows(tmp_path):
    rows = lines()
    kept = rows[:1] + [row for row in rows[1:] if not row.startswith((TEXTS[12], TEXTS[700]))]
    assert f"2 of 15,625 architectures are missing, the first is {TEXTS[12]}" in told(
        written(tmp_path, kept)
    )


def test_duplicate_rows(tmp_path):
    rows = lines()
    message = told(written(tmp_path, [*rows, rows[5]]))
    assert f"line 15627: {rows[5].partition(',')[0]} is there twice" in message


def test_unknown_operation(tmp_path):
    rows = lines()
    rows[3] = TEXTS[0].replace("none~2", "max_pool~2") + ",1,1,1,1,1,1"
    assert "line 4: position 5: unknown operation 'max_pool'" in told(written(tmp_path, rows))


@pytest.mark.parametrize("value", ["100.01", "-0.1", "nan", "inf", "", "high"])
def test_accuracy_out_of_range(tmp_path, value):
    rows = lines()
    rows[2] = f"{rows[2].partition(',')[0]},1,{value},1,1,1,1"
    assert f"line 3: cifar10-test must be an accuracy in percent, 0 to 100, got {value!r}" in told(
        written(tmp_path, rows)
    )


def reading(tmp_path, value):
    """A table whose columns are `value` of the accuracy, 10 without a path and random above."""
    rng = np.random.default_rng(0)
    accuracy = np.where(EVERY.any(axis=1), rng.uniform(10, 95, COUNT), 10.0)
    texts = (f"{text}{f',{value(of):.6f}' * 6}" for text, of in zip(TEXTS, accuracy, strict=True))
    return written(tmp_path, [",".join(["architecture", *COLUMNS]), *texts])


def test_other_units(tmp_path):
    tables.read_table(reading(tmp_path, lambda accuracy: accuracy))
    fractions = told(reading(tmp_path, lambda accuracy: accuracy / 100))
    assert "cifar10-val must be in percent, its highest value is 0.9" in fractions
    errors = told(reading(tmp_path, lambda accuracy: 100 - accuracy))
    assert "cifar10-val must be accuracies, higher where better" in errors


def test_too_few_fields(tmp_path):
    rows = lines()
    rows[7] = rows[7].rpartition(",")[0]
    assert "line 8: 6 fields, the header has 7" in told(written(tmp_path, rows))


class Boom:
    """Unpickling it fails the test."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["table.pickle", "table.csv", "table.csv.gz"])
def test_a_pickle_is_never_loaded(tmp_path, protocol, name):
    data = pickle.dumps(Boom(), protocol)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert "pickles are never read" in told(tmp_path / name)


def test_other_files_that_are_not_text(tmp_path):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines()).encode())[:-3000])
    assert "damaged or cut off" in told(path)
    path.write_bytes("é".encode("latin-1"))
    assert "not a text file" in told(path)
    np.save(tmp_path / "table.npy", np.zeros(3))
    assert "not a text file" in told(tmp_path / "table.npy")


# Generated tables.


def variance_shares(values):
    """Shares of the variance over the whole space of single operations, and of pairs beyond them: a
    balanced design's.
    """
    grid = values.reshape([5] * 6) - values.mean()
    single = pairs = 0.0
    for t in range(6):
        effect = grid.mean(axis=tuple({0, 1, 2, 3, 4, 5} - {t}))
        single += effect.var()
        for s in range(t):
            both = grid.mean(axis=tuple({0, 1, 2, 3, 4, 5} - {s, t}))
            pairs += (both - both.mean(axis=0) - both.mean(axis=1, keepdims=True)).var()
    return single / grid.var(), pairs / grid.var()


@pytest.mark.parametrize("interaction", [0.0, 0.3, 1.0])
def test_interaction_is_the_share_of_variance_that_pairs_explain(interaction):
    table = tables.synthetic_table(1, interaction)
    shares = variance_shares(table.scores["cifar100", "test"].astype(np.float64))
    assert shares == pytest.approx((1 - interaction, interaction), abs=1e-5)


def test_generated_tables_have_the_form_of_read_ones():
    table = tables.synthetic_table(0, 0.5)
    assert list(table.scores) == list(COLUMNS.values())
    for data_set in DATA_SETS:
        valid, test = table.scores[data_set, "val"], table.scores[data_set, "test"]
        assert valid.shape == test.shape == (COUNT,) and valid.dtype == test.dtype == np.float32
        assert (test.min(), test.max()) == pytest.approx((10, 95))
        assert valid.min() >= 0 and valid.max() <= 100
        noise = valid - test
        assert abs(noise.mean()) < 0.01 and np.std(noise) == pytest.approx(0.3, rel=0.03)
        np.testing.assert_allclose(table.class_mean(data_set, "test"), test)


def test_generated_tables_follow_their_seed():
    first, again, other = (tables.synthetic_table(seed, 0.5) for seed in (0, 0, 1))
    for column in COLUMNS.values():
        np.testing.assert_array_equal(first.scores[column], again.scores[column])
        assert abs(np.corrcoef(first.scores[column], other.scores[column])[0, 1]) < 0.9
    a, b = first.scores["cifar10", "test"], first.scores["cifar100", "test"]
    assert 0 < np.corrcoef(a, b)[0, 1] < 0.95  # data sets have effects in common, and of their own


@pytest.mark.parametrize("interaction", [-0.1, 1.1, float("nan")])
def test_interaction_out_of_range(interaction):
    with pytest.raises(UserError, match="must be in 0..1"):
        tables.synthetic_table(0, interaction)


# Rewards.


def test_rewards_are_a_hundredth_of_the_accuracies():
    table = tables.synthetic_table(0, 0.5)
    assert table.data_sets == DATA_SETS and table.unit.name == "points"
    rewards = table.rewards("cifar100")
    assert rewards.dtype == np.float32
    np.testing.assert_allclose(rewards, table.scores["cifar100", "val"] / 100, rtol=1e-6)


@pytest.mark.parametrize("space", [SPACE, RecurrentSpace(num_nodes=3)])
def test_rewards_are_looked_up_under_jit(space):
    every = space.every()
    count = len(every)
    rewards = np.arange(count, dtype=np.float32) / 200 - 0.3
    reward = table_reward(space, rewards)
    state = reward.init(jax.random.key(0))
    score, evaluate = jax.jit(reward.score), jax.jit(reward.evaluate)
    rows = np.array([0, 1, 5, count - 1, 5])
    np.testing.assert_array_equal(score(state, every[rows], None), rewards[rows])
    np.testing.assert_array_equal(evaluate(state, every[rows], None), -rewards[rows])
    other = score(2 * state, every[rows], None)  # another table
    np.testing.assert_array_equal(other, 2 * rewards[rows])
    assert score._cache_size() == 1


def test_training_is_the_identity():
    reward = table_reward(SPACE, np.arange(COUNT) / 200)
    state = reward.init(jax.random.key(0))
    after, carry, info = reward.train(
        state, reward.initial_carry(3), EVERY[0], None, jax.random.key(1), 0
    )
    assert after is state and carry == () and info == {}


# The official file.


def test_conversion_needs_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "nats_bench", None)
    with pytest.raises(UserError, match="pip install nats_bench"):
        tables.convert_nats_bench("file")


class FakeBenchmark:
    """The part of the package's interface that is used; numbers architectures in an order of its
    own.
    """

    def query_index_by_arch(self, text):
        return COUNT - 1 - TEXTS_INDEX[text]

    def get_more_info(self, number, data_set, hp, is_random):
        assert hp == "12" and is_random is False
        base = 10.0 * ["cifar10-valid", "cifar10", "cifar100", "ImageNet16-120"].index(data_set)
        index = COUNT - 1 - number
        valid = {} if data_set == "cifar10" else {"valid-accuracy": base + index / COUNT}
        return valid | {"test-accuracy": base + 5 + index / COUNT}


TEXTS_INDEX = {text: index for index, text in enumerate(TEXTS)}


def test_conversion(monkeypatch, tmp_path):
    created = []

    def create(*arguments, **options):
        created.append((arguments, options))
        return FakeBenchmark()

    monkeypatch.setitem(sys.modules, "nats_bench", types.SimpleNamespace(create=create))
    with pytest.raises(UserError, match="no such file or folder"):
        tables.convert_nats_bench(tmp_path / "absent")
    table = tables.convert_nats_bench(tmp_path)
    assert created == [((str(tmp_path), "tss"), {"fast_mode": True, "verbose": False})]
    starts = {column: float(values[0]) for column, values in table.scores.items()}
    assert starts == {
        ("cifar10", "val"): 0,
        ("cifar10", "test"): 15,
        ("cifar100", "val"): 20,
        ("cifar100", "test"): 25,
        ("imagenet", "val"): 30,
        ("imagenet", "test"): 35,
    }
    for values in table.scores.values():
        np.testing.assert_allclose(values - values[0], np.arange(COUNT) / COUNT, atol=1e-5)
