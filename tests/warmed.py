"""Commands of runner in processes that are forked from one that has imported the libraries: seconds less for each.

Such a process is what `python -m runner` would be: its own arguments, environment, folder and streams, all modules of
runner imported anew, and torch and numpy absent from `sys.modules` until something imports them. The processes that
trials come from start in the same way. Figures are made there, but not rendered. A command that changes more of its
environment than `_HARMLESS` gets a process of its own (`running.process`); tests about processes, or that look at
pictures, ask for one themselves.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import gc
import importlib
import importlib.util
import io
import json
import logging
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types
import warnings
from pathlib import Path

from quick_pictures import save_blank

_IMPORTED = (
    "hydra", "hydra.core.global_hydra", "hydra.core.override_parser.overrides_parser", "omegaconf", "yaml",
    "rich.console", "rich.table", "numpy", "numpy.ctypeslib", "matplotlib", "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg", "matplotlib.figure", "PIL.Image", "sklearn.datasets",
    "tensorboard.compat.proto.event_pb2", "tensorboard.plugins.custom_scalar.layout_pb2",
    "tensorboard.plugins.custom_scalar.metadata", "tensorboard.plugins.hparams.plugin_data_pb2",
    "tensorboard.plugins.text.metadata", "torch", "torch.optim.swa_utils", "torch.nn.utils.parametrize",
    "torch.fx.experimental._constant_symnode", "torch.nested._internal.nested_tensor", "safetensors.torch",
)  # fmt: skip
# What a process sees only when it imports it, with what it needs
_HIDDEN = {
    "numpy": ("numpy",),
    "PIL": ("PIL",),
    "matplotlib": ("numpy", "PIL", "matplotlib", "mpl_toolkits"),
    "scipy": ("numpy", "scipy"),
    "sklearn": ("numpy", "scipy", "sklearn"),
    "torch": ("numpy", "torch", "torchgen", "functorch"),
}
# The environment with which the tests start, and what neither Python nor a library reads when it is imported
_START = dict(os.environ)
_OF_OTHERS = ("PYTEST_", "KMP_")  # KMP: what scikit-learn sets when it is imported
_HARMLESS = {"PYTHONPATH", "PYTHONWARNINGS", "HOME", "COLUMNS", "LINES", "NO_COLOR", "TERM", "VALUE"}
_SECONDS = 300


def can_fork(environment: dict[str, str]) -> bool:
    """Return True if the process of a command with this environment may be a fork."""
    differing = {name for name in environment | _START if environment.get(name) != _START.get(name)}
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    return (
        hasattr(os, "pidfd_open")
        and all(name in _HARMLESS or name.startswith(_OF_OTHERS) for name in differing)
        # Python itself reads this file when it starts
        and not any(Path(each, "sitecustomize.py").exists() for each in paths)
    )


class _Finder:
    """Finds modules that the server has imported, once they are asked for; no process sees them before that."""

    def __init__(self, hidden: dict[str, types.ModuleType]) -> None:
        self._hidden = hidden

    def find_spec(self, name, path=None, target=None):
        """Return where one of the modules is, and how to load it; nothing is loaded by that."""
        if name not in self._hidden:
            return None
        usual = self._hidden[name].__spec__
        packages = _HIDDEN.get(_package(name), ())
        with_it = {each: module for each, module in self._hidden.items() if _package(each) in packages}
        spec = importlib.util.spec_from_loader(name, _Found(name, with_it), origin=usual.origin)
        spec.submodule_search_locations = usual.submodule_search_locations
        spec.has_location = usual.has_location
        return spec


def _package(name: str) -> str:
    return name.partition(".")[0]


class _Found:
    """Loads a module that is there already; all others of its package come with it, and what these need."""

    def __init__(self, name: str, modules: dict[str, types.ModuleType]) -> None:
        self._name, self._modules, self._spec = name, modules, modules[name].__spec__

    def create_module(self, spec):
        """Return the module."""
        sys.modules.update({name: module for name, module in self._modules.items() if name != self._name})
        return self._modules[self._name]

    def exec_module(self, module) -> None:
        """Give the module the spec that it had."""
        module.__spec__ = self._spec


class _State:
    """What a new process finds: its modules, and what other code may have changed in those that stay."""

    def __init__(self) -> None:
        for name in _IMPORTED:
            importlib.import_module(name)
        importlib.import_module("matplotlib.figure").Figure.savefig = save_blank
        all_packages = {each for packages in _HIDDEN.values() for each in packages}
        hidden = {name: module for name, module in sys.modules.items() if _package(name) in all_packages}
        self._modules = {name: module for name, module in sys.modules.items() if name not in hidden}
        self._meta_path = [_Finder(hidden), *sys.meta_path]
        self._path, self._hooks = sys.path[1:], list(sys.path_hooks)
        self._filters = warnings.filters[:]

    def restore(self, first: str) -> None:
        """Make this process one that has imported nothing of runner; `first` is its first place for modules."""
        sys.modules.clear()
        sys.modules.update(self._modules)
        sys.meta_path[:], sys.path_hooks[:] = self._meta_path, self._hooks
        more = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
        sys.path[:] = [first, *more, *self._path]
        sys.path_importer_cache.clear()
        importlib.invalidate_caches()
        warnings.filters[:] = self._filters
        warnings._filters_mutated()
        logging.root.handlers.clear()
        sys.excepthook, threading.excepthook = sys.__excepthook__, threading.__excepthook__
        _restore_signals()
        _open_streams()


def _restore_signals() -> None:
    """Give signals the handlers of a new process; those that are ignored stay so."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) and number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)


def _open_streams() -> None:
    """Open the standard streams as Python does."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            raw = io.FileIO(number, mode, closefd=False)
        except OSError:
            stream = None
        else:
            buffered = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
            errors = "backslashreplace" if number == 2 else "strict"
            stream = io.TextIOWrapper(buffered, "utf-8", errors, line_buffering=number == 2 or os.isatty(number))
            stream.mode = mode
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


class _Running:
    """A process that was forked for a request: it reports its number, and then its exit code."""

    def __init__(self, pid: int, report: int) -> None:
        self._pid, self._report = pid, report
        self._watched = os.pidfd_open(pid)
        os.write(report, b"%d\n" % pid)

    def fileno(self) -> int:
        """Return a descriptor that can be read when the process has ended."""
        return self._watched

    def end(self) -> None:
        """Report the exit code, or minus the number of a signal."""
        _, status = os.waitpid(self._pid, 0)
        with contextlib.suppress(OSError):
            os.write(self._report, b"%d\n" % os.waitstatus_to_exitcode(status))
        self.close()

    def close(self) -> None:
        """Close what a forked process must not have."""
        os.close(self._watched)
        os.close(self._report)


def _serve(channel: socket.socket) -> None:
    """Fork a process for each request and report its end until nobody can ask; return in the forked process."""
    state = _State()
    running: set[_Running] = set()
    while True:
        ready, _, _ = select.select([channel, *running], [], [])
        for each in running.intersection(ready):
            running.remove(each)
            each.end()
        if channel in ready:
            message, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 3)
            if not message:
                os._exit(0)
            pid = os.fork()
            if pid == 0:
                for each in (channel, *running):
                    each.close()
                _begin(state, json.loads(message), *descriptors)
                return
            for each in descriptors[:2]:
                os.close(each)
            running.add(_Running(pid, descriptors[2]))


def _begin(state: _State, asked: dict, output: int, errors: int, report: int) -> None:
    """Make this forked process that of the command which was asked for."""
    os.dup2(output, 1)
    os.dup2(errors, 2)
    for each in (output, errors, report):
        os.close(each)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    state.restore(str(Path.cwd()))
    sys.argv = ["-m", *asked["words"]]
    _fork_trials(state)


def _fork_trials(state: _State) -> None:
    """Let the programs that runner starts with `python -c` be forks as well, if Python starts them as expected."""
    execute = getattr(subprocess, "_fork_exec", None)
    if execute is None or not hasattr(atexit, "_clear"):
        return

    def fork_exec(args, executables, close, keep, cwd, environment, *rest):
        words = [os.fsdecode(each) for each in args]
        before = rest[15]
        if words[:2] != [sys.executable, "-c"] or "from runner." not in words[2] or before is not None:
            return execute(args, executables, close, keep, cwd, environment, *rest)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads: none but this one goes on
            pid = os.fork()
        if pid == 0:
            contextvars.Context().run(_become, state, words, keep, cwd, environment, rest)
        return pid

    subprocess._fork_exec = fork_exec


def _become(state: _State, words: list[str], keep, cwd, environment, rest) -> None:
    """Run `python -c` in this process, which was forked for it, and end."""
    code = 1
    try:
        atexit._clear()
        for number, descriptor in enumerate((rest[0], rest[3], rest[5])):
            if descriptor not in (-1, number):
                os.dup2(descriptor, number)
        _close_all_but({0, 1, 2, *keep} - {rest[7]})
        for each in set(keep) - {rest[7]}:
            os.set_inheritable(each, True)
        if cwd is not None:
            os.chdir(cwd)
        if rest[9]:
            os.setsid()
        if environment is not None:
            os.environ.clear()
            os.environ.update(dict(os.fsdecode(each).split("=", 1) for each in environment))
        state.restore("")
        gc.unfreeze()
        gc.enable()
        sys.argv = ["-c", *words[3:]]
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[2], "<string>", "exec"), module.__dict__)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        _end(code)


def _close_all_but(descriptors: set[int]) -> None:
    """Close all descriptors of this process but these."""
    for each in list(Path("/proc/self/fd").iterdir()):
        if int(each.name) not in descriptors:
            with contextlib.suppress(OSError):
                os.close(int(each.name))


def _end(code: int) -> None:
    """End this process as Python does, but for the frames of the process that it was forked from."""
    with contextlib.suppress(BaseException):
        threading._shutdown()
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(code)


class _Server:
    """The process that is forked, as a test sees it."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        environment = {name: value for name, value in _START.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            # matplotlib without the user's settings, as runner imports it
            env={**environment, "PYTHONWARNINGS": "error", "MATPLOTLIBRC": os.devnull, "MPLBACKEND": ""},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()

    def ask(self, words: tuple[str, ...], cwd: Path, environment: dict[str, str], descriptors: list[int]) -> None:
        """Ask for a process; raises OSError if the server has ended."""
        asked = {"words": words, "cwd": str(cwd.absolute()), "env": environment}
        socket.send_fds(self._channel, [json.dumps(asked).encode()], descriptors)

    def close(self) -> None:
        """End the server."""
        self._channel.close()
        self._process.wait()


_server: _Server | None = None


def command(*words: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `python -m runner` in a forked process; raises TimeoutExpired as `subprocess.run` does."""
    global _server
    pipes = [os.pipe() for _ in range(3)]
    try:
        for attempt in (1, 2):
            if _server is None:
                _server = _Server()
                atexit.register(_server.close)
            try:
                _server.ask(words, cwd, environment, [theirs for _, theirs in pipes])
                break
            except OSError:
                # A test ended all processes that it found below this one
                if attempt == 2:
                    raise
                _server = None
    finally:
        for _, theirs in pipes:
            os.close(theirs)
    output, errors, report = _read(words, [ours for ours, _ in pipes])
    pid, _, code = report.decode().strip().partition("\n")
    assert code, f"the process {pid} of {words} was lost"
    return subprocess.CompletedProcess(words, int(code), _text(output), _text(errors))


def _read(words: tuple[str, ...], descriptors: list[int]) -> list[bytes]:
    """Read all descriptors to their ends and close them; after a while kill the process and raise TimeoutExpired."""
    found, until = dict.fromkeys(descriptors, b""), time.monotonic() + _SECONDS
    with selectors.DefaultSelector() as selector:
        for each in descriptors:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, until - time.monotonic()))
            if not ready:
                if pid := found[descriptors[-1]].strip():
                    os.kill(int(pid), signal.SIGKILL)
                raise subprocess.TimeoutExpired(words, _SECONDS)
            for key, _ in ready:
                part = os.read(key.fd, 1 << 16)
                found[key.fd] += part
                if not part:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return list(found.values())


def _text(data: bytes) -> str:
    """Return what was printed as `subprocess.run` does."""
    return io.TextIOWrapper(io.BytesIO(data), encoding="utf-8").read()


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("runner", run_name="__main__", alter_sys=True)
