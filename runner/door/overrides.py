"""Parse the overrides of the command line with Hydra's grammar, and check that their keys may be set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.door.options import OPTION, RECIPE, Conf, chosen_options
from runner.errors import ConfigError, brief
from runner.expand_user import expanded
from runner.key_history import ALIASES
from runner.keys import key_marks
from runner.plain_yaml import MAX_DEPTH, MAX_LENGTH, check_key_name, check_values
from runner.settings import SETTINGS

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir")
# Texts in which , and = are ordinary characters
_TYPED = (*_FOLDERS, "hydra.sweeper.storage")
# Hydra's parser gets slow with many brackets
_MAX_BRACKETS = 200
_OPEN_HYDRA_KEYS = (
    r"hydra/(launcher|sweeper(/(sampler|pruner))?)|hydra\.(launcher|sweeper|sweep)\..+|hydra\.(run\.dir|mode)"
)
_KEY = r"(?a)[A-Za-z_$][\w$-]*([./]([A-Za-z_$][\w$-]*|\d+))*"
# Examples of the functions of Hydra's grammar
_EXAMPLES = {
    "choice": "choice(a,b)",
    "range": "range(0,5)",
    "interval": "interval(0.1,1)",
    "tag": "tag(log,interval(1e-4,1))",
    "int": "int(interval(16,64))",
    "glob": "glob(*)",
    "sort": "sort(3,1,2)",
    "shuffle": "shuffle(range(0,5))",
}
# Python's int() refuses numbers of more than 4300 digits
_LONG_NUMBER = r"[\d_]{4000}"


class ParsedOverride(NamedTuple):
    """One override: key without `+`, value as text in Hydra's grammar, Hydra's parse, and the word as typed."""

    key: str
    text: str
    parsed: Override
    typed: str

    @property
    def word(self) -> str:
        """Return the override for Hydra."""
        return f"{self.key}={self.text}"

    @property
    def value(self) -> Any:
        """Return the value; undefined for a sweep."""
        return self.parsed.value()

    @property
    def swept(self) -> bool:
        """True if it holds several values to try."""
        return self.parsed.is_sweep_override()

    @property
    def sets_hydra(self) -> bool:
        """True if it configures Hydra and not the run."""
        return re.match(r"hydra\b", self.key) is not None


def read_overrides(conf: Conf, words: Iterable[str]) -> list[ParsedOverride]:
    """Return the overrides; raises ConfigError for those that are malformed, unknown, not allowed or given twice."""
    found: dict[str, ParsedOverride] = {}
    words = list(map(_with_setting, words))
    for word in words:
        _refuse_bare_word(conf, word)
        given = parse_override(word)
        check_allowed(conf, given, words)
        if given.key in found:
            raise ConfigError(f"{given.key}: given twice ({_quoted_value(found[given.key])}, {_quoted_value(given)})")
        found[given.key] = given
    durations = [found[key].value for key in ("epochs", "steps") if key in found]
    if len(durations) == 2 and None not in durations:
        raise ConfigError("steps: given together with epochs, must be one of the two")
    return list(found.values())


def _with_setting(word: str) -> str:
    """Return an override of a setting under its own name, where it was given under another."""
    key, equals, text = word.partition("=")
    setting = ALIASES.get(key.lstrip("+"))
    # A knob keeps its name: an option of a plugin may have one that is called so
    return f"{setting}{equals}{text}" if setting and key.lstrip("+").partition(".")[0] in SETTINGS else word


def _refuse_bare_word(conf: Conf, word: str) -> None:
    """Reject a word that is neither a flag nor key=value, or that removes a key."""
    if word.startswith("~"):
        raise ConfigError(f"{brief(word)}: removing a key is not supported; choose another option, or set [] or null")
    if not word.partition("=")[0].strip("+ ") or "=" not in word:
        groups = [group for group in conf.defaults if word in conf.files[group]]
        hint = f"; did you mean '{groups[0]}={word}'?" if groups else ""
        raise ConfigError(f"{brief(word) or repr(word)}: must be key=value or a flag (see --help){hint}")


@cache
def parse_override(word: str) -> ParsedOverride:
    """Return one override, parsed."""
    key, _, text = word.lstrip("+").partition("=")
    if len(word) > MAX_LENGTH:
        raise ConfigError(f"{brief(key)}: is longer than {MAX_LENGTH} characters")
    text = expanded(key, text) if key in _FOLDERS else text
    typed = key in _TYPED or key_marks(key).typed(text)
    if not typed:
        _refuse_brackets(key, text)
    if typed:
        text = ",".join(map(_as_typed, _values_in(key, text)))
    # Late, as below: a command line without overrides needs no grammar
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return ParsedOverride(key, text, OverridesParser.create().parse_override(f"{key}={text}"), word)
    except (HydraException, RecursionError, ValueError) as error:
        raise ConfigError(f"{brief(word)}: {_syntax_error(key, text)}") from error


def _as_typed(text: str) -> str:
    """Return a text in quotes, unless it has them or is a word of Hydra's grammar."""
    from hydra.core.override_parser.types import Quote, QuotedString

    is_grammar = re.fullmatch(r"null|(['\"]).*\1|(choice|glob)\(.*\)", text)
    return text if is_grammar else QuotedString(text, Quote.double).with_quotes()


def _values_in(key: str, text: str) -> list[str]:
    """Return the values to try in a text that is taken as typed: one, or those that commas separate."""
    mark = key_marks(key).path
    if mark is None or not mark.sweeps or re.fullmatch(r"(['\"]).*\1|(choice|glob)\(.*\)", text):
        return [text]
    return text.split(",")


def choice_texts(given: ParsedOverride) -> list[str]:
    """Return each value of a list to try as text that `parse_override` reads as this value.

    Hydra leaves out the quotes of `choice("null","a b")`, and what escapes a text elsewhere is part of a path.
    """
    return [_text_of(given.key, each) for each in given.parsed.sweep_iterator()]


def _text_of(key: str, value: Any) -> str:
    """Return a value as text in Hydra's grammar, in quotes where that text would be read as another value."""
    from hydra.core.override_parser.types import Quote, QuotedString, Transformer

    text = Transformer.str(value)
    if not isinstance(value, (str, QuotedString)):
        return text
    wanted = value.text if isinstance(value, QuotedString) else value
    with suppress(ConfigError):
        if parse_override(f"{key}={text}").value == wanted:
            return text
    return QuotedString(wanted, Quote.single).with_quotes()


def _refuse_brackets(key: str, text: str) -> None:
    """Reject a value that is too slow for Hydra's parser, or nested too deep for a merge."""
    if sum(map(text.count, "[{(")) > _MAX_BRACKETS:
        raise ConfigError(f"{brief(key)}: holds more than {_MAX_BRACKETS} brackets")
    steps = ((letter in "[{(") - (letter in "]})") for letter in text)
    if max(key.count("."), *accumulate(steps), 0) > MAX_DEPTH:
        raise ConfigError(f"{brief(key)}: is nested deeper than {MAX_DEPTH} levels")


def _syntax_error(key: str, text: str) -> str:
    """Return why Hydra cannot parse an override."""
    if not re.fullmatch(_KEY, key):
        return f"'{brief(key)}' is not a key; must be key=value, as in optim.lr=0.1"
    for left, right, what in (("[", "]", "brackets"), ("{", "}", "braces"), ("(", ")", "parentheses")):
        if text.count(left) != text.count(right):
            return f"the {what} do not match"
    if text.count("'") % 2 or text.count('"') % 2:
        return "the quotes do not match"
    if re.search(_LONG_NUMBER, text):
        return "holds a number of more than 4000 digits"
    if function := re.fullmatch(r"(\w+)\(.*\)", text):
        if like := _EXAMPLES.get(function[1]):
            return f"cannot read {function[1]}(...); must be like {like}"
        return f"cannot read {function[1]}(...); there are {', '.join(_EXAMPLES)}"
    return f"""cannot be read; put a value with special characters in two pairs of quotes: {brief(key)}='"..."'"""


def check_allowed(conf: Conf, given: ParsedOverride, words: Sequence[str] = ()) -> None:
    """Reject an override of a key that must not be set, or with an unknown first word; `words` are all overrides."""
    key, top = given.key, re.split(r"[./]", given.key)[0]
    for part in re.split(r"[./]", key):
        check_key_name(part, key)
    if given.parsed.package is not None:
        raise ConfigError(f"{key}: '@' is not supported; an option's values are always in its group")
    if given.sets_hydra:
        _check_hydra_key(given)
    elif "/" in key or (top not in conf.defaults and top not in SETTINGS):
        # Late: it imports this module, and only a wrong key needs it
        from runner.door.suggestions import unknown_first_word

        raise unknown_first_word(conf, given, words)
    elif key in conf.defaults and not given.swept and (key == RECIPE or not isinstance(given.value, dict)):
        chosen_options(conf, key, given.value)
    elif given.swept and key_marks(key).unswept:
        raise ConfigError(f"{key}: cannot be swept")


def _check_hydra_key(given: ParsedOverride) -> None:
    """Reject keys that make Hydra run code, and sweeps over Hydra's own config."""
    if not re.fullmatch(_OPEN_HYDRA_KEYS, given.key):
        raise ConfigError(
            f"{given.key}: cannot be set (allowed: hydra/launcher, hydra/sweeper, hydra.launcher.*, hydra.sweeper.*, "
            "hydra.run.dir, hydra.sweep.*, hydra.mode)"
        )
    if re.match(r"hydra\.sweeper\.params\b", given.key):
        raise ConfigError("hydra.sweeper.params: belongs in a recipe; here write the values to try: optim.lr=0.1,0.2")
    if given.swept:
        raise ConfigError(f"{given.key}: cannot be swept")
    if "/" in given.key and not OPTION.fullmatch(str(given.value)):
        raise ConfigError(f"{given.key}: got {_quoted_value(given)}, must be one word")
    if given.key in _FOLDERS and given.value in ("", None):
        raise ConfigError(f"{given.key}: got {_quoted_value(given)}, must be the path of a folder")
    check_values(given.value, f"{given.key}.")


def _quoted_value(given: ParsedOverride) -> str:
    """Return a value as an error shows it."""
    text = given.text if given.swept else str(given.value)
    return f"'{text}'" if given.swept or isinstance(given.value, str) else "null" if given.value is None else text
