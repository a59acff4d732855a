"""The front door: a command line is composed, checked and answered here; a task starts only after that.

Nothing on the way to a task imports torch, so a wrong word costs a fraction of a second.
"""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Sequence

from runner.engine.interruption import raising
from runner.errors import RunnerError

LONGEST = 2000  # characters of an error line


def command() -> int:
    """Answer the command line of this process, which ends with it: `main`, without looking for garbage where none is.

    Almost all that the imports make lives to the end. To search it for garbage, again and again while it comes and once
    more at the exit, would take a quarter of a short run. What makes garbage switches the collector on: a task
    (`runner.tasks.start`), and the planning of a sweep.
    """
    gc.disable()
    try:
        return main()
    finally:
        if "triton" not in sys.modules:  # whose bindings complain of what is not collected
            gc.freeze()


def main(argv: Sequence[str] | None = None) -> int:
    """Answer a command line and return the exit code; every refusal is one line on stderr."""
    try:
        with raising():
            return answer(list(sys.argv[1:] if argv is None else argv))
    except RunnerError as error:
        sys.stderr.write(f"runner: error: {one_line(str(error))}\n")
        return error.exit_code
    except KeyboardInterrupt as error:
        return getattr(error, "exit_code", 130)
    except Exception:
        traceback.print_exc()
        sys.stderr.write("runner: error: this is a bug in runner, please report it with the lines above\n")
        return 70


def answer(argv: list[str]) -> int:
    """Show what was asked for, or run it."""
    from runner.door.arguments import COMPLETION, read_arguments

    if any(word in COMPLETION for word in argv):
        from runner.door.trials import through_hydra

        return through_hydra(argv)
    arguments = read_arguments(argv)
    if arguments.version or arguments.help:
        from runner.door.help import help_text, version_text
        from runner.door.options import find_conf

        conf = find_conf(arguments.config_dir)
        sys.stdout.write(version_text() + "\n" if arguments.version else help_text(conf))
        return 0
    from runner.door.command import run

    return run(arguments)


def one_line(text: str) -> str:
    """Return a text without line breaks and control characters, cut to a readable length."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 3] + "..."


if __name__ == "__main__":
    sys.exit(command())
