"""The front door: a command line is composed, checked and answered here; a task starts only after that.

Nothing on the way to a task imports torch, so a wrong word costs a fraction of a second.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from runner.engine.garbage import paused
from runner.engine.interruption import raising, watch_children
from runner.engine.processes import claim_process
from runner.printing import check_printed, write_stderr, write_stdout
from runner.status import print_error
from runner.streams import guard, lost_output, restore
from runner.user_folders import check_working_folder
from runner.user_paths import anchored, start_folder


def command() -> int:
    """Answer the command line of this process and return its exit code, without searching imports for garbage."""
    guard()
    watch_children()
    claim_process()
    _find_plugins_here()
    with paused():
        code = main()
    restore()
    if code == 0 and (problem := lost_output()):
        # What a task leaves in files is complete
        write_stderr(f"runner: warning: {problem}\n")
    return code


def _find_plugins_here() -> None:
    """Let plugins be found in the working folder, as with `python -m runner`; the script `runner` has its own first."""
    # As for Python itself, an isolated or safe start adds no folder
    if not sys.flags.safe_path and "" not in sys.path:
        here = start_folder()
        if here is not None and here not in sys.path:
            sys.path.insert(0, here)


def main(argv: Sequence[str] | None = None) -> int:
    """Answer a command line and return the exit code; every refusal is one line on stderr."""
    try:
        with anchored(), raising():
            return _answer(list(sys.argv[1:] if argv is None else argv))
    except BaseException as error:
        return print_error(error).exit_code


def _answer(argv: list[str]) -> int:
    """Show what was asked for, or run it."""
    from runner.door.arguments import COMPLETION, read_arguments

    if any(word in COMPLETION for word in argv):
        from runner.door.completion import completion

        write_stdout(completion([word for word in argv if word not in COMPLETION]))
        check_printed()
        return 0
    arguments = read_arguments(argv)
    if arguments.version or arguments.help:
        from runner.door.help import help_text, version_text
        from runner.door.options import find_conf

        conf = find_conf(arguments.config_dir)
        write_stdout(version_text() + "\n" if arguments.version else help_text(conf))
        check_printed()
        return 0
    check_working_folder()
    from runner.door.command import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(command())
