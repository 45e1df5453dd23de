"""Reports on a controller of any make, from arrays: does it know what it is building? Needs neither
JAX nor a run.

Reads, for n architectures in a search space of T decisions (n at least 10, in the same order in
every file):

  --decisions    [n, T] whole numbers: what was decided. recurrent: f_0, p_1, f_1, p_2, f_2, ...;
                 activations f_i in 0..3 (tanh, relu, identity, sigmoid) and parents p_i in 0..i-1;
                 nasbench201: operations 0..4 of the edges (0, 1), (0, 2), (1, 2), (0, 3), (1, 3),
                 (2, 3); macro, micro: see nas/spaces/macro.py and micro.py.
  --embeddings   [n, H] numbers: the controller's hidden state after the last decision.
  --log_probs    [n, T, K] natural logarithms of p(choice | decisions before), K at least the
                 largest number of choices; -inf where there is no such choice.
  --performance  [n] numbers, on any scale: log perplexity, accuracy, ...

Each is a .npy file, or an .npz file with one array or with an array of the flag's name. Written
with numpy:

  numpy.savez("decisions.npz", decisions=decisions)
  numpy.save("embeddings.npy", hidden[:, -1])

Writes index.html, its tables (.csv, .md) and its figures (.png) into --out. If there are more than
200 architectures, the first 200 are compared pair by pair; all are probed.
"""

import pathlib
import shlex
import sys

from absl import flags

from launch import common
from launch.paths import define_path

flags.DEFINE_string(
    "space",
    "recurrent",
    "Search space: recurrent, nasbench201, macro or micro; or a class of your own, MODULE:CLASS, "
    "whose folder is on PYTHONPATH.",
)
flags.DEFINE_list(
    "space_settings",
    None,
    "Settings of the space, NAME=WHOLE NUMBER,... Empty: its defaults; recurrent: num_nodes=12.",
)
define_path("decisions", "File of decisions [n, T].")
define_path("embeddings", "File of embeddings [n, H].")
define_path("log_probs", "File of log-probabilities [n, T, K]; empty: none.")
define_path("performance", "File of performances [n]; empty: none.")
define_path("out", "Folder for the report.", folder=True)
FLAGS = flags.FLAGS
_LEAST = 10  # fewest architectures
_SUM = 1e-3  # most by which a sum of probabilities may differ from 1
_LARGEST = 1e100  # largest number allowed: its square is finite


def main():
    from nas.errors import UserError

    for name in ("decisions", "embeddings", "out"):
        if not FLAGS[name].value:
            raise UserError(f"--{name}: must name a {'folder' if name == 'out' else 'file'}")
    space = _space()
    arrays = _read(space)
    from nas.report import diagnosis  # imported here, so that errors in the files come sooner

    page = pathlib.Path(FLAGS.out, "index.html")
    command = shlex.join(["python", "-m", "launch.diagnose", *sys.argv[1:]])
    for table in diagnosis.write_report(page, space, diagnosis.Controller(*arrays), command):
        print(table.text())
    print(f"report: {page}")


def _space():
    from nas import tasks
    from nas.errors import UserError

    settings = {}
    for item in FLAGS.space_settings or []:
        name, _, value = item.partition("=")
        if not (value.isascii() and value.isdigit()):
            raise UserError(f"--space_settings: must be NAME=WHOLE NUMBER, got {item!r}")
        settings[name] = int(value)
    try:
        return tasks.space(FLAGS.space, settings)
    except UserError as error:
        raise UserError(f"--space: {error}") from None


def _read(space):
    """Decisions, embeddings, log-probabilities and performance, checked; the last two are None if
    there is no file.
    """
    import numpy as np

    from nas.errors import UserError

    decisions = _load("decisions")
    try:
        decisions = space.validate(decisions)
    except UserError as error:
        raise UserError(f"--decisions={FLAGS.decisions}: {error}") from None
    n = len(decisions)
    if n < _LEAST:
        raise UserError(
            f"--decisions={FLAGS.decisions}: at least {_LEAST} architectures are needed, got {n}"
        )
    embeddings = _numbers("embeddings", n, "H")
    log_probs = _numbers("log_probs", n, space.num_decisions, "K") if FLAGS.log_probs else None
    performance = _numbers("performance", n) if FLAGS.performance else None
    if log_probs is not None:
        if log_probs.shape[2] < space.max_choices:
            raise UserError(
                f"--log_probs={FLAGS.log_probs}: K must be at least {space.max_choices}, got "
                f"{log_probs.shape[2]}"
            )
        log_probs = np.where(space.choice_mask(), log_probs[:, :, : space.max_choices], -np.inf)
        totals = np.exp(log_probs).sum(axis=2)
        wrong = np.argwhere(~(abs(totals - 1) < _SUM))
        if len(wrong):
            row, t = wrong[0]
            raise UserError(
                f"--log_probs={FLAGS.log_probs}: architecture {row}, position {t}: the "
                "probabilities of its "
                f"{space.num_choices[t]} choices must sum to 1, got {totals[row, t]:.4g}"
            )
    return decisions, embeddings, log_probs, performance


def _numbers(name, *shape):
    """The array of a flag, checked to be of this shape; a letter stands for any size from 1 on.

    Log-probabilities may be -inf; all other numbers must be finite. Embeddings keep their
    precision, by which differences are told from rounding errors.
    """
    import numpy as np

    from nas.errors import UserError

    array, where = _load(name), f"--{name}={FLAGS[name].value}"
    fits = array.ndim == len(shape) and all(
        size > 0 if isinstance(wanted, str) else size == wanted
        for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        expected = ", ".join(map(str, shape))
        raise UserError(
            f"{where}: must be of shape [{expected}], with an entry for each of the decisions, "
            f"got {list(array.shape)}"
        )
    kind = np.promote_types(array.dtype, np.float32) if name == "embeddings" else np.float64
    array, size = array.astype(kind), abs(array.astype(np.float64))
    bad = ~(size <= _LARGEST) & ~((array == -np.inf) & (name == "log_probs"))
    if bad.any():
        place = ", ".join(map(str, np.argwhere(bad)[0]))
        limit = "" if np.isinf(array[bad][0]) or np.isnan(array[bad][0]) else f" up to {_LARGEST:g}"
        raise UserError(f"{where}: must be finite{limit}, got {array[bad][0]} at [{place}]")
    return array


def _load(name):
    """The array of a flag, which holds numbers."""
    from nas.arrays import load_arrays
    from nas.errors import UserError

    path = pathlib.Path(FLAGS[name].value)
    where = f"--{name}"
    try:
        found = load_arrays(path, sealed=False)
    except UserError as error:
        raise UserError(
            f"{where}: {error}; it must be a file of numpy.save or numpy.savez"
        ) from None
    if len(found) != 1 and name not in found:
        raise UserError(
            f"{where}: {path} must hold one array, or one named {name}; it has "
            f"{', '.join(found) or 'none'}"
        )
    array = found[name] if name in found else next(iter(found.values()))
    if array.dtype.kind not in "iuf":
        kind = array.dtype
        hint = "; numpy cannot save bfloat16, convert to float32 first" if kind.kind == "V" else ""
        raise UserError(f"{where}: {path} must hold numbers, got {kind}{hint}")
    return array


if __name__ == "__main__":
    common.run(main)
