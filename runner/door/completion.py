"""Completion of the command line in bash, zsh and fish: `runner -sc install=bash` prints the script.

The script asks `runner -sc query`. That reads YAML files only, so a key press does not wait for Hydra or torch.
"""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args, get_origin

from runner.annotations import annotation
from runner.door.options import Conf, default_choice, find_conf, template, templates
from runner.errors import ConfigError, unknown
from runner.settings import SETTINGS

_BASH = """_runner_complete() {
    local line="${COMP_LINE:0:$COMP_POINT}" word
    case "$line" in (python*) case "$line" in (*" -m runner "*) ;; (*) return ;; esac ;; esac
    word="${line##* }"
    local IFS=$'\\n'
    COMPREPLY=($(COMP_LINE="$line" COMMAND -sc query 2> /dev/null))
    # bash replaces what follows the last =
    case "$COMP_WORDBREAKS" in (*=*) COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*=}"}"}") ;; esac
}
complete -o nospace -o default -F _runner_complete NAMES
"""
_ZSH = """_runner_complete() {
    local line="${BUFFER[1,$CURSOR]}"
    if [[ "$line" == python* && "$line" != *" -m runner "* ]]; then _default; return; fi
    local -a found=(${(f)"$(COMP_LINE="$line" COMMAND -sc query 2> /dev/null)"})
    if (( $#found )); then compadd -S '' -a found; else _default; fi
}
compdef _runner_complete NAMES
"""
# fish quotes what it inserts itself, and shows files where `_runner_asked` is false
_FISH = """function _runner_asked
    set -l line (commandline -cp)
    not string match -q 'python*' -- $line; or string match -q '* -m runner *' -- $line
end
function _runner_complete
    set -lx COMP_LINE (commandline -cp)
    COMMAND -sc query 2> /dev/null | string trim -l -c \\'\\"
end
for name in NAMES
    complete -c $name -n _runner_asked -f -a '(_runner_complete)'
end
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
_FLAGS = ("-m", "--multirun", "--cfg", "--config-dir", "--config-name", "--help", "--info", "--resolve", "--version")


def completion(words: Sequence[str]) -> str:
    """Return the answer to `-sc <what>`: a script to install or remove, or the completions of `COMP_LINE`.

    Raises:
        ConfigError: for another shell or another question.
    """
    asked = [word for word in words if not word.startswith("-")]
    what, _, shell = (asked[0] if asked else "").partition("=")
    if what == "query":
        return "".join(f"{each}\n" for each in _completions(os.environ.get("COMP_LINE", "")))
    if what not in ("install", "uninstall") or len(asked) != 1:
        raise ConfigError(f"-sc: got '{' '.join(asked)}', must be install=bash, install=zsh or install=fish")
    if shell not in _SCRIPTS:
        raise unknown("-sc", "shell", shell, _SCRIPTS)
    module = sys.argv[0].endswith("__main__.py")
    names, command = ("python python3", f"{shlex.quote(sys.executable)} -m runner") if module else ("runner", "runner")
    if what == "uninstall":
        return {"bash": f"complete -r {names}\n", "zsh": f"compdef -d {names}\n"}.get(
            shell, f"complete -e -c {names}\n"
        )
    return _SCRIPTS[shell].replace("COMMAND", command).replace("NAMES", names)


def _completions(line: str) -> list[str]:
    """Return what the last word of a command line can become, sorted."""
    typed = line.split(" ")
    word, before = typed[-1], typed[:-1]
    if word.startswith("-"):
        return sorted(flag for flag in _FLAGS if flag.startswith(word))
    following = dict(itertools.pairwise(before))
    try:
        conf = find_conf(following.get("--config-dir") or following.get("-cd"))
        quote = word[:1] if word[:1] in ("'", '"') else ""
        word = word.removeprefix(quote)
        found = [*_values(conf, before, word)] if "=" in word else [*_keys(conf, before, word)]
    except ConfigError:
        # A file of the user is broken: the command itself says so
        return []
    return sorted({quote + each for each in found if each.startswith(word)})


def _keys(conf: Conf, before: Sequence[str], word: str) -> Iterable[str]:
    """Yield the keys that a word can become: those of the chosen option once the group is written."""
    group = word.partition(".")[0]
    if "." not in word:
        yield from (f"{key}=" for key in (*conf.defaults, *SETTINGS))
    elif group in conf.defaults:
        yield from (f"{place}.{knob}=" for place, _, knobs in _places(conf, before, group) for knob in knobs)


def _values(conf: Conf, before: Sequence[str], word: str) -> Iterable[str]:
    """Yield the values that a key can have: options of a group, words of a type, the default of a knob."""
    key, _, text = word.partition("=")
    if key in conf.defaults:
        # The last of several: augment=[crop,hfl, or optim=sgd,ad
        start = text[: max(text.rfind(","), text.rfind("[")) + 1]
        yield from (f"{key}={start}{option}" for option in conf.files[key])
    elif key in SETTINGS:
        yield from (f"{key}={each}" for each in [*_words(SETTINGS[key]), _yaml(conf.settings[key])])
    else:
        place, _, name = key.rpartition(".")
        for where, (group, option), knobs in _places(conf, before, key.partition(".")[0]):
            if where == place and name in knobs:
                yield from (f"{key}={each}" for each in [*_words(annotation(group, option, name)), _yaml(knobs[name])])


def _places(conf: Conf, before: Sequence[str], group: str) -> Iterable[tuple[str, tuple[str, str], dict[str, Any]]]:
    """Yield place, component and knobs of the options that a command line chooses in a group."""
    if group not in conf.defaults:
        return
    given = dict(word.strip("'\"").partition("=")[::2] for word in before if "=" in word)
    recipe = given.get("recipe")
    options = default_choice(conf, group, recipe if recipe in conf.files["recipe"] else None)
    if group in given:
        options = [each for each in given[group].strip("[]").split(",") if each in conf.files[group]]
    if conf.several(group):
        for entry, knobs in templates(conf, group, options).items():
            yield f"{group}.{entry}", (group, entry), knobs
    elif options:
        knobs = template(conf, group, options[0])
        yield group, (group, str(knobs["name"])), {name: value for name, value in knobs.items() if name != "name"}


def _words(kind: Any) -> list[str]:
    """Return the words that a value of a type can be."""
    if kind is bool:
        return ["true", "false"]
    if get_origin(kind) is Literal:
        return list(map(_yaml, get_args(kind)))
    return sorted({word for part in get_args(kind) for word in _words(part)}) if get_origin(kind) is not list else []


def _yaml(value: Any) -> str:
    """Return a default as the command line takes it, without spaces."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace(" ", "").replace("'", "")
