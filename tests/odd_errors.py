"""Exceptions as no one would raise them, by name: their text, their class or their parts cannot be used."""

import sys


class StrRaises(Exception):
    def __str__(self):
        raise ValueError("no text")


class StrEnds(Exception):
    def __str__(self):
        sys.exit(3)


class StrIsNone(Exception):
    def __str__(self):
        return None


class _OddText(str):
    def splitlines(self, keepends=False):
        raise ValueError

    def isprintable(self):
        return True


class StrIsOdd(Exception):
    def __str__(self):
        return _OddText("a\x1bb")


class _NoName(type):
    @property
    def __name__(cls):
        raise ValueError


class NoName(Exception, metaclass=_NoName):
    pass


class NoClass(Exception):
    @property
    def __class__(self):
        raise ValueError


class NoCause(Exception):
    @property
    def __cause__(self):
        raise ValueError


class OwnInterrupt(KeyboardInterrupt):
    exit_code = "abc"


class OwnBase(BaseException):
    pass


class OddNotes(Exception):
    __notes__ = 5


class _ReprFails:
    def __repr__(self):
        raise MemoryError


def _loop():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def _chain():
    error = ValueError("the oldest")
    for number in range(2000):
        newer = ValueError(number)
        newer.__cause__, error = error, newer
    return error


def _nested():
    error = ValueError("the innermost")
    for _ in range(1500):
        error = ExceptionGroup("group", [error])
    return error


CONTROLS = "\x1b[31mred\x07\0\x9b2J\u202e\u2028\rend"
SHOWN = r"\x1b[31mred\x07\x00\x9b2J\u202e\u2028\rend"
LONG = "x" * 3_000_000
# name: how to make it, and how its reason begins
ODD = {
    "str raises": (StrRaises, "StrRaises: <str() of StrRaises raised ValueError>"),
    "str ends the process": (StrEnds, "StrEnds: <str() of StrEnds raised SystemExit>"),
    "str is None": (StrIsNone, "StrIsNone: <str() of StrIsNone raised TypeError>"),
    "str is no plain str": (StrIsOdd, r"StrIsOdd: a\x1bb"),
    "no name": (lambda: NoName("text"), "NoName: text"),
    "no class": (lambda: NoClass("text"), "NoClass: text"),
    "no cause": (lambda: NoCause("text"), "NoCause: text"),
    "own interrupt": (lambda: OwnInterrupt("text"), "OwnInterrupt: text"),
    "own base": (lambda: OwnBase("text"), "OwnBase: text"),
    "odd notes": (lambda: OddNotes("text"), "OddNotes: text"),
    "exit with an object": (lambda: SystemExit(_ReprFails()), "SystemExit"),
    "exit with text": (lambda: SystemExit(f"a{CONTROLS}" * 100_000), "SystemExit"),
    "controls": (lambda: ValueError(CONTROLS.replace("\u2028\r", "")), "ValueError: " + SHOWN.replace(r"\u2028\r", "")),
    "blank lines": (lambda: ValueError("\n \n  the text\nmore"), "ValueError: the text"),
    "long": (lambda: ValueError(f"{LONG}tail"), "ValueError: xxx"),
    "many lines": (lambda: ValueError("line\n" * 500_000), "ValueError: line"),
    "long name": (lambda: type("N" * 100_000, (Exception,), {})("text"), "NNN"),
    "name of two lines": (lambda: type("A\nB\x1b", (Exception,), {})("text"), r"A\nB\x1b: text"),
    "loop of causes": (_loop, "ValueError: first"),
    "long chain of causes": (_chain, "ValueError: 1999"),
    "nested groups": (_nested, "ExceptionGroup: group (1 sub-exception) [ValueError: the innermost]"),
    "large group": (
        lambda: ExceptionGroup("many", [ValueError(number) for number in range(5000)]),
        "ExceptionGroup: many (5000 sub-exceptions) [ValueError: 0; ValueError: 1; ValueError: 2]",
    ),
    "too deep": (RecursionError, "RecursionError"),
}
