"""Run directories: how one is started or continued, and how a finished one is opened.

However many processes compute, one of them writes the directory:

    config.json          every setting
    run.json             command, device and versions of the last start; the places of its data
    checkpoints/         nas.checkpoint
    metrics.jsonl        nas.logs; tensorboard/ holds the same
    architectures.npy    nas.scored
    evaluation.npz       nas.measurements; losses.npz before it is complete
    result.json          nas.training; replaces architectures.npy and evaluation.npz where one model
                         is trained from scratch
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from nas import checkpoint, logs, search, steps, tasks, training
from nas import config as configs
from nas.config import Config
from nas.errors import UserError, one_line
from nas.files import replacing, writing
from nas.parallel import choose_devices
from nas.spaces import SearchSpace
from nas.spaces.space import MAX_NODES
from nas.tasks import Splits, Task
from nas.types import Batch, Params, Policy, Reward

CONFIG, METADATA, LOCK, RESULT = "config.json", "run.json", "lock", "result.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "networkx", "tensorflow-datasets")
_SETTINGS = (  # settings of JAX that change numbers
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)
_TOGETHER = 10  # architectures per compiled call of an evaluation


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory that has a checkpoint."""

    workdir: pathlib.Path
    config: Config
    metadata: dict[str, Any]  # contents of run.json
    task: Task
    policy: Policy
    reward: Reward
    state: steps.SearchState  # the newest intact checkpoint's
    progress: dict[str, int]

    @property
    def space(self) -> SearchSpace:
        """The search space that gives its decisions their meaning."""
        return self.task.space

    @property
    def has_state(self) -> bool:
        """Whether the controller has a hidden state."""
        return self.policy.state_width > 0

    @property
    def policy_params(self) -> Params:
        """Parameters of the controller at the checkpoint.

        Raises:
          UserError: the search has no controller.
        """
        params = steps.components(self.config).strategy.policy_params(self.state.strategy)
        if params is None:
            raise UserError(
                f"--workdir: {self.workdir} is a search by {self.config.strategy['name']}, which "
                "has no controller"
            )
        return params

    def untrained_policy_params(self) -> Params:
        """Parameters that the controller started with."""
        parts = steps.components(self.config)
        return jax.jit(
            lambda: parts.strategy.policy_params(steps.initial_state(self.config, parts).strategy)
        )()

    def metrics(self) -> list[dict]:
        """The steps that the run has logged."""
        return logs.read(self.workdir, self.logged())

    def logged(self) -> dict[str, int]:
        """phase -> number of steps that the run has logged."""
        return search.logged(self.config, search.Progress(**self.progress))

    @functools.cached_property
    def splits(self) -> Splits:
        """The batches that the run was trained on and is judged by, read once."""
        places = {name: self.metadata.get(name) for name in ("raw_dir", "data_dir")}
        splits = self.task.data.load(**places)
        _check_data(self.metadata, splits)
        return splits

    def valid_batches(self, *, whole: bool = False) -> Batch:
        """The stacked validation batches that an evaluation reads: as many as hold
        `evaluation.examples`, or all.
        """
        return self.splits.valid.head(0 if whole else self.config.evaluation.examples)

    def losses(
        self, decisions: np.ndarray, batches: Batch, advance: Callable[[int], object]
    ) -> np.ndarray:
        """[n] losses of architectures [n, T] under the shared weights.

        Args:
          batches: stacked [W, B, ...].
          advance: called with the number of architectures that were done since the last call.
        """
        return self._scored(jax.jit(self.reward.evaluate), decisions, batches, advance)

    def rewards(self, decisions: np.ndarray, batches: Batch) -> np.ndarray:
        """[n] mean rewards of architectures [n, T] over stacked batches [W, B, ...]."""
        return self._scored(self._mean_reward, decisions, batches, lambda count: None)

    @functools.cached_property
    def _mean_reward(self):
        def mean(state, decisions, batches):
            score = functools.partial(self.reward.score, state, decisions)
            return jax.numpy.mean(jax.lax.map(score, batches), axis=0)

        return jax.jit(mean)

    def _scored(self, score, decisions, batches, advance):
        values = [np.zeros(0, np.float32)]
        for start in range(0, len(decisions), _TOGETHER):
            group = decisions[start : start + _TOGETHER]
            padded = np.concatenate([group, np.repeat(group[:1], _TOGETHER - len(group), axis=0)])
            values.append(np.asarray(score(self.state.reward, padded, batches))[: len(group)])
            advance(len(group))
        return np.concatenate(values)


def start(
    config: Config,
    workdir: pathlib.Path,
    *,
    raw_dir: str | None = None,
    data_dir: str | None = None,
    parallel: str = "",
) -> steps.SearchState:
    """Starts a search in `workdir`, or continues the one that is there.

    Args:
      raw_dir, data_dir: as for `nas.tasks.Data.load`.
      parallel: as for `nas.parallel.choose_devices`.

    Raises:
      UserError: the directory holds another configuration (the fields are listed), cannot be
        written or is in use by another process; the data is unavailable; or what `nas.search.run`
        raises.
    """
    if config.training.architecture:
        raise UserError(
            "config field training.architecture: must be empty in a search; "
            "launch.train_from_scratch trains it"
        )
    jax_settings()
    devices = choose_devices(parallel)
    search.check(config, devices)
    task = tasks.build(config)
    if devices.is_main:
        _warn_of_large_graphs(task.space)
    splits = task.data.load(raw_dir=raw_dir, data_dir=data_dir)
    with _open(config, workdir, splits) if devices.is_main else contextlib.nullcontext():
        if devices.is_main:
            _write_json(workdir / METADATA, _metadata(config, splits, raw_dir, data_dir))
        return search.run(config, workdir, splits, devices=devices)


def train(
    config: Config,
    workdir: pathlib.Path,
    *,
    raw_dir: str | None = None,
    data_dir: str | None = None,
) -> training.Result:
    """Trains the model of `config.training` from scratch in `workdir`, continues the training
    there, or reads its result if it has ended.

    Args:
      raw_dir, data_dir: as for `nas.tasks.Data.load`.

    Raises:
      UserError: as `start`; an architecture that is not in the space; or what `nas.training.run`
        raises.
    """
    jax_settings()
    task = tasks.build(config)
    model = task.network.model(task.space, task.data, config.training.architecture)
    splits = task.data.load(raw_dir=raw_dir, data_dir=data_dir)
    with _open(config, workdir, splits):
        if (workdir / RESULT).is_file():
            try:
                return _read_result(workdir / RESULT)
            except UserError as error:
                print(f"warning: {error}; it is computed again", file=sys.stderr)
        _write_json(workdir / METADATA, _metadata(config, splits, raw_dir, data_dir))
        with jax.default_matmul_precision(configs.PRECISIONS[config.precision]):
            result = training.run(model, config, workdir, task, splits)
        _write_json(workdir / RESULT, result._asdict())
        return result


def open_run(workdir: pathlib.Path) -> Run:
    """Opens a run directory from its newest intact checkpoint.

    Raises:
      UserError: there is no such directory, it is not a search, or it has no intact checkpoint.
    """
    if not (workdir / CONFIG).is_file():
        raise UserError(f"--workdir: {workdir} is not a run directory (it has no {CONFIG})")
    config = _read_config(workdir)
    if config.training.architecture:
        raise UserError(f"--workdir: {workdir} holds a model trained from scratch, not a search")
    if not (workdir / checkpoint.FOLDER).is_dir():
        raise UserError(_no_checkpoint(workdir))
    metadata = _read_metadata(workdir)
    _check_settings(metadata)
    tasks.search_also(metadata.get("task_folder"))
    parts = steps.components(config)
    checkpoints = checkpoint.Checkpoints(workdir, config.search.keep)
    restored = checkpoints.restore(jax.eval_shape(lambda: steps.initial_checkpoint(config, parts)))
    checkpoints.close()
    if restored is None:
        raise UserError(_no_checkpoint(workdir))
    saved, numbers = restored
    progress = search.Progress.of(numbers, config)._asdict()
    return Run(
        workdir, config, metadata, parts.task, parts.policy, parts.reward, saved["search"], progress
    )


def finish(config: Config, workdir: pathlib.Path, **options) -> None:
    """Calls `start`, unless the search has already reached its end.

    Raises:
      UserError: as `start`.
    """
    devices = choose_devices(options.get("parallel", ""))
    if not devices.agree(devices.is_main and is_finished(config, workdir)):
        if devices.is_main:
            print(f"searching: {workdir}", file=sys.stderr)
        start(config, workdir, **options)


def is_finished(config: Config, workdir: pathlib.Path) -> bool:
    """Whether the search of `config` in `workdir` has reached its end.

    Raises:
      UserError: the directory holds another configuration.
    """
    if not (workdir / CONFIG).is_file():
        return False
    _check_same(config, workdir)
    try:
        return open_run(workdir).progress["epoch"] == config.search.epochs
    except UserError:  # `start` repairs or explains it
        return False


def versions() -> dict[str, str]:
    """Python, the packages that numbers depend on, and the device."""
    found = {"python": platform.python_version()}
    found |= {name: importlib.metadata.version(name) for name in PACKAGES}
    device = jax.devices()[0]
    return found | {"device": f"{device.platform} ({device.device_kind}) x {jax.device_count()}"}


def command() -> str:
    """The command line of this process, as one would type it."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    program = ["python", "-m", spec.name] if spec else ["python", sys.argv[0]]
    return shlex.join([*program, *sys.argv[1:]])


@contextlib.contextmanager
def _open(config, workdir, splits):
    """Writes the configuration, and locks the directory against a second process."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / LOCK).open("a+")
    except OSError as error:
        raise UserError(f"--workdir: cannot write to {workdir}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"--workdir: {workdir} is in use by another process ({lock.read(200).strip()}); if "
                f"its host is gone, delete {workdir / LOCK}"
            ) from None
        except OSError as error:  # a file system without locks
            print(
                f"warning: {workdir} cannot be locked ({error.strerror}); do not start a second "
                "process that writes there",
                file=sys.stderr,
            )
        metadata = {}
        if (workdir / CONFIG).is_file():
            _check_same(config, workdir)
            with contextlib.suppress(UserError):  # absent or damaged; it is written again
                metadata = _read_metadata(workdir)
        _check_settings(metadata)
        _check_data(metadata, splits)
        with writing(workdir / LOCK):
            lock.truncate(0)
            os.write(lock.fileno(), f"process {os.getpid()} of {platform.node()}\n".encode())
        values = dataclasses.asdict(config)
        if not (workdir / CONFIG).is_file() or _read_json(workdir / CONFIG) != values:
            _write_json(workdir / CONFIG, values)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a disk that has become read-only
                lock.truncate(0)


def _warn_of_large_graphs(space):
    if (nodes := space.largest_graph) > MAX_NODES:
        print(
            f"warning: graphs of this space have up to {nodes} nodes; exact edit distances are "
            f"computed for up to {MAX_NODES}, so an evaluation of this search will leave them out",
            file=sys.stderr,
        )


def _check_same(config, workdir):
    if differing := configs.obstacles(_read_config(workdir), config):
        raise UserError(
            f"--workdir: {workdir} holds a run of another configuration: {'; '.join(differing)}"
        )


def _read_config(workdir):
    try:
        return configs.from_dict(_read_json(workdir / CONFIG))
    except UserError as error:
        raise UserError(f"{workdir / CONFIG}: {error}") from None


def jax_settings() -> dict[str, Any]:
    """JAX's settings that change numbers, with their current values.

    Raises:
      UserError: double precision is on or compilation is off: a run would fail.
    """
    for name in ("jax_enable_x64", "jax_disable_jit"):
        if getattr(jax.config, name):
            raise UserError(f"{name.upper()}: must be off; this program does not work with it")
    return {name: str(getattr(jax.config, name)) for name in _SETTINGS}


def _check_settings(metadata):
    """Checks that a run is read and continued with the JAX settings that it was started with."""
    found = jax_settings()
    for name, value in (metadata.get("jax_settings") or {}).items():
        if name in found and found[name] != value:
            raise UserError(
                f"{name.upper()}: the run was started with {value!r}, now it is {found[name]!r}"
            )


def _read_metadata(workdir):
    """Contents of run.json; checks that they have the types that `_metadata` writes."""
    values = _read_json(workdir / METADATA)
    text, place = (str,), (str, type(None))
    kinds = {"command": text, "raw_dir": place, "data_dir": place, "data": text}
    kinds |= {"task_folder": place, "jax_settings": (dict,), "versions": (dict,)}
    for name, kind in kinds.items():
        if not isinstance(values.get(name, 0), kind):
            raise UserError(
                f"{workdir / METADATA} is damaged: {name} must be a {kind[0].__name__}; a search "
                "of the same configuration writes it again"
            )
    return values


def _read_result(path):
    values = _read_json(path)
    if set(values) != set(training.Result._fields) or not all(
        isinstance(value, int | float)
        or (name in ("averaging_from", "test_reward") and value is None)
        for name, value in values.items()
    ):
        raise UserError(f"{path} is damaged: it must hold {', '.join(training.Result._fields)}")
    return training.Result(**values)


def _read_json(path):
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; a search of the same configuration writes it again"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (RecursionError, ValueError) as error:  # not JSON, or not even text
        raise UserError(f"{path} is damaged: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it must hold an object")
    return values


def _write_json(path, values):
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(values, indent=2) + "\n")
    except UserError as error:
        raise UserError(f"--workdir: {error}") from error


def _no_checkpoint(workdir):
    return f"--workdir: {workdir} has no checkpoint yet; let the search reach the end of an epoch"


def _place(path):
    return os.path.abspath(os.path.expanduser(path)) if path else None


def _fingerprint(splits):
    """SHA-256 of the length, the first and the last batch of every split."""
    sha = hashlib.sha256()
    for split in splits:
        sha.update(str(split.length).encode())
        for batch in (split.take(0, 1), split.take(split.length - 1, 1)):
            for leaf in jax.tree.leaves(batch):
                sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


def _check_data(metadata, splits):
    """Checks that a run is continued and opened with the data that it was started with."""
    if metadata.get("data", found := _fingerprint(splits)) != found:
        place = metadata.get("raw_dir") or metadata.get("data_dir") or "its data"
        raise UserError(f"{place}: this is not the data that the run was started with")


def _metadata(config, splits, raw_dir, data_dir):
    # TFDS' default folder is written out, so that a process with another home can open the run too.
    data_dir = data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return {
        "command": command(),
        "raw_dir": _place(raw_dir),
        "data_dir": _place(data_dir),
        "data": _fingerprint(splits),
        "task_folder": tasks.folder(config.task),
        "jax_settings": jax_settings(),
        "versions": versions(),
    }
