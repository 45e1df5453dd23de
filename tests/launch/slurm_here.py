"""A real Slurm of two nodes on this machine, in a folder of its own, for the tests that need one.

It needs the programs of Slurm and munge (Debian: apt install slurmctld slurmd slurm-client munge)
and root, as whom slurmd starts jobs. The nodes are named after addresses of the loopback network,
since a search of several processes looks the first of them up.
"""

import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

from tests.helpers import TIMEOUT

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
NODES = ("127.0.0.1", "127.0.0.2")
GPUS = 4  # of each node, as far as Slurm knows
_SETTLED = 5.0  # seconds after which a requeue is over for all daemons
_CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout={slurmd_timeout}
KillWait=30
InactiveLimit=0
JobRequeue=1
FirstJobId={first_job}
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0
GresTypes=gpu
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""
_NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr={name} Port={port} CPUs={cpus} "
    "SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory=2000 Gres=gpu:{gpus}"
)


def missing() -> str:
    """What keeps Slurm from running here; empty if nothing does."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        return f"no {', '.join(absent)} here (Debian: slurmctld slurmd slurm-client munge)"
    return "" if os.getuid() == 0 else "slurmd starts jobs as root only"


class Slurm:
    """The daemons, and what asks them."""

    def __init__(self, folder: pathlib.Path, cpus: int, slurmd_timeout: int):
        self.folder = folder
        self.variables = {"SLURM_CONF": str(folder / "slurm.conf")}  # of programs that use it
        self._daemons: dict[str, subprocess.Popen] = {}
        self._seen: dict[str, float] = {}  # number of a job that waits -> since when it was seen
        self._write(cpus, slurmd_timeout)

    def start(self) -> None:
        """Starts all daemons, and waits until both nodes answer."""
        paths = {name: f"--{name}-file={self.folder}/munge.{name}" for name in ("pid", "seed")}
        key = self.folder / "munge.key"
        key.write_bytes(random.randbytes(128))
        key.chmod(0o600)
        paths |= {"key": f"--key-file={key}", "log": f"--log-file={self.folder}/munge.log"}
        munge = ["munged", "-F", "--force", f"--socket={self.folder}/munge.socket"]
        self._daemon("munged", [*munge, *paths.values()])
        wait_for(lambda: (self.folder / "munge.socket").exists())
        self._daemon("slurmctld", ["slurmctld", "-D"])
        for node in NODES:
            self.start_node(node)
        wait_for(self.is_idle)

    def start_node(self, node: str) -> None:
        """Starts the daemon of a node, which takes jobs as soon as Slurm has heard of it."""
        self._daemon(node, ["slurmd", "-D", "-N", node])

    def is_idle(self) -> bool:
        """Whether all nodes could take a job."""
        return self.ask("sinfo", "-h", "-t", "idle", "-o", "%D") == str(len(NODES))

    def kill_node(self, node: str) -> None:
        """Ends the daemon of a node and all that runs there with SIGKILL, as a power failure."""
        self._daemons[node].kill()
        self._daemons.pop(node).wait()
        there = {pid for pid in self._processes() if _variable(pid, "SLURMD_NODENAME") == node}
        steps = [pid for pid in _processes() if command(pid).startswith("slurmstepd")]
        for pid in [step for step in steps if there.intersection(_children(step))] + [*there]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def ask(self, *command: str) -> str:
        """What a command of Slurm prints; empty where it fails."""
        done = subprocess.run(
            command, env=os.environ | self.variables, capture_output=True, text=True
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    def submit(self, *arguments, **options) -> str:
        """The number of the job that sbatch makes of the arguments."""
        command = ["sbatch", "--parsable", *map(str, arguments)]
        options = {"env": os.environ | self.variables} | options
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, **options
        ).stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What Slurm says of a job: JobState, Restarts, ..."""
        words = self.ask("scontrol", "-o", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def jobs(self) -> list[str]:
        """The numbers of all jobs that run."""
        return self.ask("squeue", "-h", "-t", "R", "-o", "%i").split()

    def processes_of(self, number: str) -> list[int]:
        """The numbers of a job's processes."""
        return [pid for pid in self._processes() if _variable(pid, "SLURM_JOB_ID") == number]

    def hurry(self) -> None:
        """Lets jobs that wait after a requeue begin after some seconds, and not after two minutes.

        Within the second of the requeue Slurm would take the new start for the old, and fail it.
        """
        waiting = self.ask("squeue", "-h", "-t", "PD", "-o", "%i").split()
        now = time.monotonic()
        self._seen = {number: self._seen.get(number, now) for number in waiting}
        for number, since in self._seen.items():
            if now > since + _SETTLED:
                self.ask("scontrol", "update", f"jobid={number}", "StartTime=now")

    def finish(self, number: str) -> dict[str, str]:
        """The job, when it has ended for good."""

        def ended():
            self.hurry()
            return self.job(number).get("JobState", "RUNNING") not in (
                "PENDING",
                "RUNNING",
                "COMPLETING",
                "CONFIGURING",
                "REQUEUED",
            )

        wait_for(ended, every=0.5)
        return self.job(number)

    def stop(self) -> None:
        """Ends all jobs and all daemons."""
        self.ask("scancel", "--signal=KILL", "--full", "--user=root")
        self.ask("scancel", "--user=root")
        with contextlib.suppress(AssertionError):
            wait_for(lambda: not self.ask("squeue", "-h"), seconds=20)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for pid in self._processes():  # what outlived its daemon
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _write(self, cpus, slurmd_timeout):
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(1 + len(NODES))]
            for one in sockets:
                one.bind(("", 0))
            ports = [one.getsockname()[1] for one in sockets]
        host = socket.gethostname().partition(".")[0]
        for number in range(GPUS):
            (self.folder / f"gpu{number}").touch()
        gres = f"AutoDetect=off\nName=gpu File={self.folder}/gpu[0-{GPUS - 1}]\n"
        (self.folder / "gres.conf").write_text(gres)
        (self.folder / "state").mkdir()
        nodes = [
            _NODE.format(name=name, host=host, port=port, cpus=cpus, gpus=GPUS)
            for name, port in zip(NODES, ports[1:], strict=True)
        ]
        settings = {"host": host, "ports": ports, "folder": self.folder, "user": "root"}
        # A search of several processes meets at a port that follows from the number of its job.
        settings |= {"first_job": random.randrange(1, 10**6), "slurmd_timeout": slurmd_timeout}
        conf = _CONF.format(nodes="\n".join(nodes), **settings)
        (self.folder / "slurm.conf").write_text(conf)

    def _daemon(self, name, command):
        log = (self.folder / f"{name}.out").open("ab")
        self._daemons[name] = subprocess.Popen(
            command, env=os.environ | self.variables, stdout=log, stderr=log, start_new_session=True
        )

    def _processes(self):
        """Those of jobs; another Slurm on this machine has others."""
        ours = [pid for pid in _processes() if _variable(pid, "SLURM_JOB_ID")]
        return [pid for pid in ours if _variable(pid, "SLURM_CONF") == self.variables["SLURM_CONF"]]


@contextlib.contextmanager
def slurm(folder: pathlib.Path, *, cpus: int = 2, slurmd_timeout: int = 10) -> Iterator[Slurm]:
    """Slurm while the block runs.

    Args:
      folder: empty; of a short path, since it holds a socket.
      cpus: of each node, as far as Slurm knows.
      slurmd_timeout: seconds after which a node that does not answer is down.
    """
    running = Slurm(folder, cpus, slurmd_timeout)
    try:
        running.start()
        yield running
    finally:
        running.stop()


def wait_for(condition, *, every: float = 0.1, seconds: float = TIMEOUT) -> None:
    """Waits for what only another program tells; the guard is for one that hangs."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing came of it"
        time.sleep(every)


def _processes():
    return [int(path.name) for path in pathlib.Path("/proc").iterdir() if path.name.isdigit()]


def _read(pid, name):
    try:
        return pathlib.Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def command(pid: int) -> str:
    """The command line of a process; empty if it is gone."""
    return _read(pid, "cmdline").replace("\0", " ")


def _variable(pid, name):
    """An environment variable of a process."""
    found = [part for part in _read(pid, "environ").split("\0") if part.startswith(f"{name}=")]
    return found[0].partition("=")[2] if found else ""


def _children(pid):
    return [int(child) for child in _read(pid, f"task/{pid}/children").split()]
