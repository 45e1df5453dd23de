"""Diagnosing a controller of any make from files: without JAX, and one line for what the user can
mend.
"""

import pathlib
import zipfile

import numpy as np
import pytest

from nas.spaces.recurrent import RecurrentSpace
from tests.forked import run_forked
from tests.helpers import assert_one_line, finish_program, start_program

SPACE = RecurrentSpace(num_nodes=4)  # 7 decisions, at most 4 choices
N = 12
SHAPE = (N, SPACE.num_decisions)


def arrays():
    rng = np.random.default_rng(0)
    log_probs = np.broadcast_to(
        np.log(SPACE.choice_mask() / np.array(SPACE.num_choices)[:, None] + 1e-300), (*SHAPE, 4)
    )
    return {
        "decisions": rng.integers(0, SPACE.num_choices, SHAPE),
        "embeddings": rng.normal(size=(N, 5)).astype(np.float32),
        "log_probs": np.array(log_probs),
        "performance": rng.normal(size=N),
    }


def write(folder, **values):
    """Writes the arrays and returns the flags that name them."""
    for name, array in values.items():
        np.save(folder / f"{name}.npy", array)
    return [f"--{name}={folder / name}.npy" for name in values]


MODULE = "launch.diagnose"


def diagnose(environment, *arguments):
    return finish_program(start_program(environment, MODULE, *arguments))


@pytest.fixture
def without_jax(user_environment, tmp_path_factory):
    """A user's environment in which importing JAX raises."""
    folder = tmp_path_factory.mktemp("without_jax")
    (folder / "jax.py").write_text("raise ImportError('there is no JAX here')\n")
    return user_environment | {"PYTHONPATH": f"{folder}:{user_environment['PYTHONPATH']}"}


@pytest.mark.slow
def test_reports_without_jax(without_jax, tmp_path):
    out = tmp_path / "out"
    process = diagnose(
        without_jax, "--space_settings=num_nodes=4", f"--out={out}", *write(tmp_path, **arrays())
    )
    assert process.returncode == 0, process.stderr
    for shown in (
        "total overlap",
        "edit distance",
        "one-hot",
        "conditioning",
        f"report: {out / 'index.html'}",
        "--space_settings=num_nodes=4",
    ):
        assert shown in process.stdout
    assert {"index.html", "correlations.csv", "performance.csv", "conditioning.csv"} <= {
        path.name for path in out.iterdir()
    }


def test_archives_and_another_space(user_environment, tmp_path):
    """An .npz of one array, another of several of which one has the flag's name; no more than what
    is required.
    """
    decisions, embeddings = np.random.default_rng(1).integers(0, 5, (N, 6)), arrays()["embeddings"]
    np.savez(tmp_path / "one.npz", anything=decisions)
    np.savez(tmp_path / "several.npz", embeddings=embeddings, other=decisions)
    files = [f"--decisions={tmp_path / 'one.npz'}", f"--embeddings={tmp_path / 'several.npz'}"]
    process = run_forked(
        user_environment, MODULE, "--space=nasbench201", f"--out={tmp_path / 'out'}", *files
    )
    assert process.returncode == 0, process.stderr
    assert "common operations" in process.stdout and "conditioning" not in process.stdout


def test_a_space_of_ones_own(user_environment, tmp_path):
    values = arrays() | {"decisions": np.random.default_rng(2).integers(0, 3, (N, 4))}
    files = write(tmp_path, **{name: values[name] for name in ("decisions", "embeddings")})
    beside = {"PYTHONPATH": f"{pathlib.Path(__file__).parents[1]}"}
    process = run_forked(
        user_environment | beside, MODULE, "--space=own_task:Layers", f"--out={tmp_path}", *files
    )
    assert process.returncode == 0, process.stderr
    assert "common activations" in process.stdout


def spoiled(name, change):
    def spoil(values):
        values[name] = change(values[name])

    return spoil


def put(place, value):
    def change(array):
        array[place] = value
        return array

    return change


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (
            spoiled("decisions", put((3, 5), 3)),
            ["--decisions", "architecture 3, position 5 (connection)", "3 is not in 0..2"],
        ),
        (spoiled("decisions", lambda a: a[:, :5]), ["--decisions", "7 numbers", "(12, 5)"]),
        (spoiled("decisions", lambda a: a[:9]), ["--decisions", "at least 10", "got 9"]),
        (spoiled("embeddings", lambda a: a[:-1]), ["--embeddings", "[12, H]", "[11, 5]"]),
        (spoiled("embeddings", put((2, 1), np.nan)), ["--embeddings", "finite", "nan at [2, 1]"]),
        (spoiled("embeddings", lambda a: a.astype("U8")), ["--embeddings", "numbers"]),
        (
            spoiled("log_probs", lambda a: a[:, :, :3]),
            ["--log_probs", "K must be at least 4", "got 3"],
        ),
        (
            spoiled("log_probs", put((1, 2, 0), 0.0)),
            ["--log_probs", "architecture 1, position 2", "sum to 1, got 1.75"],
        ),
        (spoiled("performance", lambda a: a[:, None]), ["--performance", "[12]", "[12, 1]"]),
    ],
)
def test_arrays_that_do_not_fit(spoil, parts, user_environment, tmp_path):
    values = arrays()
    spoil(values)
    out = tmp_path / "out"
    process = run_forked(
        user_environment,
        MODULE,
        "--space_settings=num_nodes=4",
        f"--out={out}",
        *write(tmp_path, **values),
    )
    assert_one_line(process, *parts)
    assert not out.exists()


def _foreign(folder):
    """Files that are not what numpy writes of numbers."""
    np.save(folder / "bits.npy", np.zeros((12, 4), "V2"))  # bfloat16, as numpy saves it
    np.save(folder / "objects.npy", np.array([{}] * 12), allow_pickle=True)
    np.save(folder / "texts.npy", np.full((12, 4), "a"))
    with zipfile.ZipFile(folder / "sheet.npz", "w") as archive:
        archive.writestr("sheet.csv", "1,2")
    np.savez_compressed(folder / "bit.npz", np.random.default_rng(0).normal(size=(12, 40)))
    whole = (folder / "bit.npz").read_bytes()
    first, last = whole.index(b"PK\x03\x04"), whole.index(b"PK\x01\x02")
    (folder / "bit.npz").write_bytes(_changed(whole, {len(whole) // 2: whole[len(whole) // 2] ^ 4}))
    (folder / "method.npz").write_bytes(_changed(whole, {first + 8: 97, last + 10: 97}))
    (folder / "locked.npz").write_bytes(_changed(whole, {first + 6: 1, last + 8: 1}))


def _changed(content, places):
    content = bytearray(content)
    for place, value in places.items():
        content[place] = value
    return content


@pytest.mark.parametrize(
    ("flag", "parts"),
    [
        ("--decisions=nowhere.npy", ["--decisions: nowhere.npy: no such file"]),
        ("--decisions=", ["--decisions", "must name a file"]),
        ("--embeddings={folder}/text.npy", ["--embeddings", "numpy.save"]),
        ("--embeddings={folder}/cut.npz", ["--embeddings", "numpy.save"]),
        ("--embeddings={folder}/two.npz", ["--embeddings", "named embeddings", "a, b"]),
        ("--space=hilbert", ["--space", "'hilbert'", "recurrent, nasbench201"]),
        ("--space=nowhere:Layers", ["--space", "No module named 'nowhere'", "PYTHONPATH"]),
        ("--space=json:loads", ["--space", "json:loads must be a class of nas.spaces.SearchSpace"]),
        ("--space_settings=num_nodes=1", ["space.num_nodes", "at least 2"]),
        ("--space_settings=num_nodes=²", ["--space_settings", "WHOLE NUMBER", "²"]),
        ("--out=", ["--out", "must name a folder"]),
        ("--out={folder}/two.npz", ["--out", "must be a folder"]),
        ("--embeddings={folder}/bits.npy", ["bits.npy must hold numbers", "float32 first"]),
        ("--embeddings={folder}/objects.npy", ["objects.npy cannot be read", "allow_pickle"]),
        ("--embeddings={folder}/texts.npy", ["texts.npy must hold numbers, got <U1"]),
        ("--embeddings={folder}/sheet.npz", ["its member sheet.csv is not an array"]),
        ("--embeddings={folder}/bit.npz", ["bit.npz cannot be read"]),
        ("--embeddings={folder}/method.npz", ["method.npz cannot be read"]),
        ("--embeddings={folder}/locked.npz", ["locked.npz cannot be read", "encrypted"]),
    ],
)
def test_flags_and_files_that_are_wrong(flag, parts, user_environment, tmp_path):
    (tmp_path / "text.npy").write_text("0.5 0.25\n")
    np.savez(tmp_path / "two.npz", a=np.ones(3), b=np.ones(3))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:200])
    _foreign(tmp_path)
    files = write(tmp_path, **arrays())
    out = tmp_path / "out"
    flags = ["--space_settings=num_nodes=4", f"--out={out}", *files, flag.format(folder=tmp_path)]
    process = run_forked(user_environment, MODULE, *flags)
    assert_one_line(process, *parts)
    assert not out.exists()


def test_help_says_how_to_write_the_files(without_jax):
    process = diagnose(without_jax, "--help")
    assert (
        process.returncode == 0
        and "numpy.savez(" in process.stdout
        and "--log_probs=" in process.stdout
    )
