"""The source has no call that turns text into code (checked with `ast`), so no config can reach one."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent / "runner"
MODULES = sorted(ROOT.rglob("*.py"))
NEVER = {
    "eval", "exec", "compile", "__import__", "breakpoint", "input",
    "os.system", "os.popen", "os.execv", "os.spawnv", "os.posix_spawn", "os.startfile", "pty.spawn",
    "yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all", "pydoc.locate", "runpy.run_path",
    "runpy.run_module",
    "hydra.utils.instantiate", "hydra.utils.call", "hydra.utils.get_class", "hydra.utils.get_method",
    "hydra.utils.get_object",
    "instantiate", "get_class", "get_method", "get_object",
    "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "numpy.lib.format.read_array",
    "shutil.unpack_archive",
}  # fmt: skip
MODULES_NEVER = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "code",
    "codeop",
    "ctypes",
    "pty",
}
# Places that may import by name or start a program, and what they import or start
ALLOWED = {
    ("runner/__init__.py", "importlib.import_module"): "our own modules, of a table",
    ("runner/components/__init__.py", "importlib.import_module"): "our own components",
    ("runner/doctor/symptoms/__init__.py", "importlib.import_module"): "our own rules of the doctor",
    ("runner/tasks/__init__.py", "importlib.import_module"): "our own tasks",
    ("runner/tasks/plugins.py", "importlib.import_module"): "the plugins of the command line",
    ("runner/components/model/library_models.py", "import_module"): "timm",
    ("runner/sweeps/loading.py", "importlib.import_module"): "our own modules, a constant",
    ("runner/sweeps/template.py", "ctypes"): "madvise of the C library, so that forks copy less",
    ("runner/sweeps/trial.py", "importlib.import_module"): "our own module, which the sweep names",
    ("runner/engine/processes.py", "ctypes"): "prctl of the C library, so that all of a trial ends with it",
    ("runner/sweeps/worker_group.py", "subprocess"): "our own server of trials",
    (
        "runner/components/data/pixels/decoder_messages.py",
        "ctypes",
    ): "the handler of libtiff's messages",
    ("runner/sweeps/slurm.py", "subprocess"): "squeue and sacct, with arguments that are constants or ids of jobs",
    ("runner/sweeps/own_process.py", "importlib.import_module"): "our own module, a constant",
    ("runner/sweeps/ask_process.py", "subprocess"): "our own module, which says what a trial would read",
    ("runner/sweeps/ask_process.py", "importlib.import_module"): "our own modules, constants",
    ("runner/trackers/in_process.py", "subprocess"): "our own module, with the checked knobs of a tracker",
    ("runner/engine/provenance.py", "subprocess"): "git, with arguments that are constants",
}


def called(node: ast.Call) -> str:
    """Return the dotted name of what a call calls."""
    return ast.unparse(node.func) if isinstance(node.func, (ast.Name, ast.Attribute)) else ""


def offences(path: Path, tree: ast.AST) -> list[str]:
    """Return what a module must not have."""
    place, found = str(path.relative_to(ROOT.parent)), []
    for node in ast.walk(tree):
        words: set[str] = set()
        if isinstance(node, ast.Import):
            words = {alias.name.split(".")[0] for alias in node.names} & (MODULES_NEVER | {"subprocess"})
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")[0]
            words = {module} & (MODULES_NEVER | {"subprocess"})
            words |= {alias.name for alias in node.names} & NEVER
        elif isinstance(node, ast.Call):
            words = offending(node)
        found += [f"{place}:{node.lineno}: {word}" for word in words if (place, word) not in ALLOWED]
    return found


def offending(node: ast.Call) -> set[str]:
    """Return what is wrong with one call."""
    name = called(node)
    words = {name} & (NEVER | {"importlib.import_module", "import_module"})
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if name == "torch.load" and keywords.get("weights_only") != "True":
        words.add("torch.load without weights_only=True")
    if (
        keywords.get("weights_only") == "False"
        or keywords.get("allow_pickle") == "True"
        or keywords.get("shell") == "True"
    ):
        words.add(f"{name} with {keywords}")
    if name.endswith(("np.load", "numpy.load")) and keywords.get("allow_pickle") != "False":
        words.add("numpy.load without allow_pickle=False")
    if name.endswith((".extractall", ".extract")) and "filter" not in keywords:
        words.add(f"{name} without a filter")
    return words


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_turns_text_into_code(path):
    assert offences(path, ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "text",
    [
        "eval(x)", "import pickle", "from pickle import loads", "import subprocess", "yaml.load(x)", "torch.load(x)",
        "torch.load(x, weights_only=False)", "np.load(x)", "from hydra.utils import instantiate", "tar.extractall(x)",
        "hydra.utils.instantiate(x)", "importlib.import_module(x)", "os.system(x)", "f(shell=True)", "__import__(x)",
    ],
)  # fmt: skip
def test_the_gate_sees(text):
    assert offences(ROOT / "somewhere.py", ast.parse(text))


def test_what_is_allowed_is_still_there():
    for place, word in ALLOWED:
        assert word in (ROOT.parent / place).read_text()
