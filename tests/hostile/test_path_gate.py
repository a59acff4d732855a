"""No module asks the disk about a user's path by itself (checked with `ast`): `runner.user_paths` does.

Two things are checked of each call that reaches the disk. Its path is made absolute, so that it means the same when a
plugin changes the working folder. And the error of the system is caught around it, or is raised by `user_paths` in one
line.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent / "runner"
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.name != "user_paths.py")
# Of a path object, whatever it is called
METHODS = {
    *("is_dir", "is_file", "exists", "is_symlink", "is_mount", "stat", "lstat", "iterdir", "glob", "rglob", "resolve"),
    *("samefile", "absolute", "owner", "readlink", "open", "read_text", "read_bytes", "write_text", "write_bytes"),
    *("mkdir", "rmdir", "unlink", "rename", "touch", "chmod", "symlink_to", "hardlink_to", "walk", "cwd"),
}
OF_OS = {
    *("stat", "lstat", "listdir", "scandir", "walk", "access", "open", "mkdir", "makedirs", "rmdir", "removedirs"),
    *("unlink", "remove", "rename", "renames", "replace", "truncate", "utime", "chmod", "chown", "link", "symlink"),
    *("readlink", "statvfs", "getcwd", "chdir", "pathconf", "mkfifo"),
    *(f"path.{name}" for name in ("exists", "lexists", "isfile", "isdir", "islink", "ismount", "realpath", "abspath")),
    *(f"path.{name}" for name in ("relpath", "samefile", "getsize", "getmtime", "getctime", "getatime")),
}
OF_SHUTIL = {"rmtree", "copy", "copy2", "copyfile", "copytree", "move", "disk_usage", "chown"}
# Of libraries
OPENERS = {"Image.open", "torch.load", "torch.from_file", "np.load", "zipfile.ZipFile", "parquet.ParquetFile"}
# Functions of `user_paths` whose result means the same in every working folder
IN_FULL = {"full", "real", "absolute"}
SAFE_BLOCKS = ("suppress(", "convert_os_errors(", "pytest.raises")
# The error is no matter here: these do not ask the disk, or say nothing where it cannot tell
HARMLESS = {"os.path.relpath", "os.path.abspath", "os.path.realpath", "os.path.islink", "os.access", "absolute"}
# Raise an OSError, as their docstrings say
RAISING = {"storage.read", "storage.sha256_of", "read_metrics"}
_OURS, _CAUGHT = "runner's own files, or those of a package", "its callers catch the error"
# Calls on paths of our own, and places whose callers catch the error: file, call -> why
ALLOWED = {
    ("engine/figures/picture.py", "os.path.lexists"): "the working folder, where matplotlib would read a file",
    ("engine/figures/picture.py", "os.chdir"): "the root folder, while matplotlib is imported",
    ("annotations.py", "(conf_folder() / kind / f'{option}.yaml').is_file"): _OURS,
    ("annotations.py", "(PACKAGE / 'components').iterdir"): _OURS,
    ("annotations.py", "home.with_suffix('.py').is_file"): _OURS,
    ("annotations.py", "home.rglob"): _OURS,
    ("annotations.py", "place.rglob"): "in full, and skips what may not be read",
    ("components/data/digits.py", "path.is_file"): _OURS,
    ("components/data/digits.py", "path.read_bytes"): _OURS,
    ("assemble/published_weights.py", "*"): "its folder is in full, and all errors are caught",
    ("components/data/download.py", "*"): "its folders are in full, and its callers catch all errors",
    ("components/data/layout/folder_listing.py", "entry.is_dir"): "an entry of a listing",
    ("components/data/pixels/image_cache.py", "storage.read"): _CAUGHT,
    ("components/data/pixels/image_cache.py", "storage.sha256_of"): _CAUGHT,
    ("components/data/pixels/image_kinds.py", "Image.open"): _CAUGHT,
    ("components/data/in_memory/npz_file.py", "file.open"): "a member of an archive",
    ("components/data/packed_identity.py", "place.glob"): "in full, one line above",
    ("components/data/pixels/prepare_images.py", "torch.from_file"): "a file that was verified one line above",
    ("components/data/in_memory/table_file.py", "os.stat"): _CAUGHT,
    ("components/data/in_memory/table_file.py", "Path(full(path)).open"): _CAUGHT,
    ("door/check.py", "(PACKAGE / 'tasks' / f'{task}.py').is_file"): _OURS,
    ("door/hydra_compose.py", "file.is_file"): _OURS,
    ("door/help.py", "(conf.folders[0] / 'config.yaml').read_text"): _OURS,
    ("engine/free_memory.py", "*"): "the system's own files",
    ("engine/processes.py", "*"): "below /proc, which no user names",
    ("engine/figures/curves.py", "read_metrics"): _CAUGHT,
    ("tasks/probe_phase.py", "read_metrics"): _CAUGHT,
    ("engine/file_digests.py", "*"): "its folders are in full, and each error is caught: a cache only saves time",
    ("engine/logs/sinks.py", "os.lstat"): _CAUGHT,
    ("engine/logs/sinks.py", "os.open"): _CAUGHT,
    ("engine/logs/sinks.py", "open"): _CAUGHT,
    ("engine/saving/disk.py", "*"): _CAUGHT,
    ("engine/saving/storage.py", "os.open"): _CAUGHT,
    ("engine/saving/storage.py", "open"): "a descriptor",
    ("api/main_options.py", "*"): "a temporary folder",
    ("registry.py", "(conf_folder() / kind / f'{word}.yaml').is_file"): _OURS,
    ("identity.py", "(conf_folder() / 'data' / f\"{data['name']}.yaml\").is_file"): _OURS,
    ("identity.py", "os.stat"): "in full, one line above",
    ("identity.py", "os.scandir"): "in full, as given",
    ("identity.py", "entry.is_dir"): "an entry of a listing",
    ("identity.py", "entry.stat"): "an entry of a listing",
    ("plain_yaml.py", "Path(__file__).resolve"): _OURS,
    ("plain_yaml.py", "(path / 'config.yaml').is_file"): _OURS,
    ("source_reader.py", "path.read_text"): _CAUGHT,
    ("source_reader.py", "path.is_file"): _OURS,
    ("streams.py", "os.open"): "the null device",
    ("sweeps/launch_folder.py", "*"): "a folder of its own, in full; what cannot be done changes nothing",
    ("sweeps/ask_process.py", "open"): "a descriptor",
    ("trackers/csv_file.py", "Path(full(self._path)).open"): "a failing tracker is a warning, as for all its errors",
    ("trackers/earlier_process.py", "os.open"): "a folder that cannot be opened is not waited for",
    ("trackers/mlflow_run.py", "os.open"): "in a process of its own, which answers with the error",
    ("trackers/serve.py", "os.open"): "the null device",
    ("user_folders.py", "*"): "folders of the system, each in full; what cannot be asked is not used",
    ("sweeps/template.py", "Path('/proc/self/maps').read_text"): "the system's own file",
    ("sweeps/trial.py", "Path('/proc/self/statm').exists"): "the system's own file",
    ("sweeps/trial.py", "Path('/proc/self/statm').read_text"): "the system's own file",
}


def name_of(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""


def reaches_disk(node: ast.Call) -> ast.expr | None:
    """Return the expression that holds the path of a call that reaches the disk, None for another call."""
    name, function = name_of(node.func), node.func
    first = node.args[0] if node.args else ast.Constant("")
    if name == "open" or name in OPENERS:
        return first
    for module, names in (("os", OF_OS), ("shutil", OF_SHUTIL)):
        if name.startswith(f"{module}."):
            return first if name.removeprefix(f"{module}.") in names else None
    if name in RAISING:
        return first
    if name.startswith(("user_paths.", "storage.", "tensor_file.", "disk.")):
        return None
    if isinstance(function, ast.Attribute) and function.attr in METHODS:
        return function.value
    # A function that is given to another one, as in map(os.path.exists, paths)
    return next((each for each in node.args if passed_on(name_of(each))), None)


def passed_on(name: str) -> bool:
    """Return True for the name of a function that reaches the disk."""
    module, _, function = name.partition(".")
    return name in {"open", *OPENERS} or (module == "os" and function in OF_OS) or (module == "Path" and bool(function))


def in_full(path: ast.expr) -> bool:
    """Return True if an expression makes a path absolute by a function of `user_paths`."""
    calls = (node for node in ast.walk(path) if isinstance(node, ast.Call))
    return any(name_of(node.func).rpartition(".")[2] in IN_FULL for node in calls)


def catches(node: ast.AST, inside: ast.AST) -> bool:
    """Return True if a block catches the errors of the system that one of its statements raises."""
    if isinstance(node, ast.Try) and inside in node.body:
        caught = " ".join(ast.unparse(each.type) if each.type else "Exception" for each in node.handlers)
        return any(word in caught for word in ("OSError", "Exception"))
    if isinstance(node, ast.With):
        return any(word in ast.unparse(item.context_expr) for item in node.items for word in SAFE_BLOCKS)
    return False


def offences(path: Path, tree: ast.AST) -> list[str]:
    """Return the calls of a module that reach the disk by themselves."""
    place, found = str(path.relative_to(ROOT)), []

    def visit(node: ast.AST, safe: bool) -> None:
        if isinstance(node, ast.Call) and (given := reaches_disk(node)) is not None:
            call = ast.unparse(node.func)
            guarded = safe or not HARMLESS.isdisjoint({call, call.rpartition(".")[2]})
            whole = call in RAISING or in_full(given)
            if not (guarded and whole) and not {(place, call), (place, "*")} & ALLOWED.keys():
                found.append(f"{place}:{node.lineno}: {call}")
        for child in ast.iter_child_nodes(node):
            # What a function does when it is called is outside the block around it
            inner = isinstance(child, (ast.FunctionDef, ast.Lambda))
            visit(child, (safe or catches(node, child)) and not inner)

    visit(tree, False)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_asks_the_disk_by_itself(path):
    assert offences(path, ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "text",
    [
        "path.is_dir()", "(folder / name).exists()", "Path(word).resolve()", "os.path.isfile(path)",
        "os.listdir(folder)", "filter(os.path.exists, paths)", "map(Path.is_dir, paths)", "partial(open, path)",
        "open(path)", "path.open()", "path.read_text()", "folder.iterdir()", "sorted(folder.glob('*'))", "Path.cwd()",
        "os.getcwd()", "os.path.abspath(path)", "shutil.rmtree(folder)", "Image.open(path)", "torch.load(path)",
        # The error is not caught
        "open(full(path))", "Path(full(path)).read_bytes()", "storage.read(path, 5)",
        "try:\n    pass\nexcept OSError:\n    open(full(path))",
        "try:\n    open(full(path))\nexcept KeyError:\n    pass",
        "with suppress(OSError):\n    def later():\n        open(full(path))",
        # The path is not made absolute
        "try:\n    open(path)\nexcept OSError:\n    pass",
    ],
)  # fmt: skip
def test_the_gate_sees(text):
    assert offences(ROOT / "somewhere.py", ast.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "user_paths.is_dir(path)", "is_file(path)", "os.path.join(a, b)", "text.replace('a', 'b')", "absolute(path)",
        "try:\n    open(full(path))\nexcept OSError:\n    pass",
        "with storage.convert_os_errors(path):\n    Path(full(path)).read_bytes()",
    ],
)  # fmt: skip
def test_the_gate_lets_pass(text):
    assert offences(ROOT / "somewhere.py", ast.parse(text)) == []


def test_what_is_allowed_is_still_there():
    used = {
        (str(path.relative_to(ROOT)), ast.unparse(node.func))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    }
    used |= {(place, "*") for place, _ in used}
    assert ALLOWED.keys() <= used
