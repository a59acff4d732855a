"""Tables at every width: each number stands whole in some line, no line is too long, and nothing vanishes unsaid."""

from __future__ import annotations

import ast
import io
import random
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from runner.fold_text import fold
from runner.rich_console import make_console
from runner.screen_tables import print_table, rows_note

ROOT = Path(__file__).parent.parent / "runner"
NUMBER = re.compile(r"(?<![\w.])[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?%?(?![\w.])")
NAMES = (
    "optim=momentum,optim.lr=0.00012345,model.hidden=[128,64],seed=12",
    "日本語のとても長い名前の設定,lr=0.025",
    "é́" * 30 + "=1.5",
    "x" * 120,
    "lr=-0.5",
    "",
)
COMPARED: list[dict[str, Any]] = [
    {
        "configuration": name,
        "n": 5,
        "val/accuracy (last)": f"0.98{at} ± 0.00{at}1",
        "val/loss (best)": f"0.{at}81, 12.{at}5",
        "difference ± 95 %": "" if at == 0 else f"-0.00{at} ± 0.02{at}",
        "p": "<.001",
        "verdict": f"none: {at} seeds, {at + 3} needed",
    }
    for at, name in enumerate(NAMES)
]
COSTS: list[dict[str, Any]] = [
    {"layer": f"blocks.{at}.conv1", **{f"measure {number}": 10.0**number * at for number in range(9)}, "none": None}
    for at in range(3)
]
SCORES: list[dict[str, Any]] = [{"split": "validation, best", "accuracy": 0.98765, "loss": 0.1234, "step": 304}]


def width_of(text: str) -> int:
    """Return the cells of a text: two for wide letters, none for accents."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def printed(rows: list[dict[str, Any]], width: int, **options: Any) -> list[str]:
    stream = io.StringIO()
    console = make_console(stream)
    console.width = width
    print_table(rows, console=console, **options)
    return stream.getvalue().splitlines()


def numbers_in(rows: list[dict[str, Any]], without: tuple[str, ...] = ()) -> set[str]:
    cells = [value for row in rows for name, value in row.items() if name not in without]
    texts = [f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in cells if cell is not None]
    return {number for text in texts for number in NUMBER.findall(text)}


def whole_numbers(lines: list[str]) -> set[str]:
    return {number for line in lines for number in NUMBER.findall(line)}


@pytest.mark.parametrize("rows", [COMPARED, COSTS, SCORES], ids=["compared", "costs", "scores"])
def test_every_number_is_whole_at_every_width(rows: list[dict[str, Any]]) -> None:
    for width in range(40, 201):
        lines = printed(rows, width, title="20 of 24 runs after 570 steps", notes=["20 of 24 configurations"])
        assert numbers_in(rows) <= whole_numbers(lines), f"{numbers_in(rows) - whole_numbers(lines)} at {width}"
        assert max(map(width_of, lines)) <= width
        for name in rows[0]:
            assert all(word in " ".join(" ".join(lines).split()) for word in re.split(r"[ /]", name)), name


def test_the_column_that_names_the_rows_stands_in_every_block() -> None:
    for width in range(40, 201):
        lines = printed(COMPARED, width)
        blocks = sum("──" in line for line in lines)
        assert sum(line.split()[:1] == ["configuration"] for line in lines) == blocks >= 1
        assert sum("lr=-0.5" in line for line in lines) == blocks
    assert blocks == 1 and sum("──" in line for line in printed(COMPARED, 40)) > 2


def test_letters_of_a_folded_name_are_all_there() -> None:
    for width in (40, 57, 80, 200):
        # The names alone; the first two lines are the heading
        lines = [line.strip() for line in printed([{"name": name} for name in NAMES], width) if "──" not in line]
        assert "".join(lines).replace(" ", "") == "name" + "".join(NAMES)


@pytest.mark.parametrize("width", [24, 40, 60, 80, 120, 200])
def test_without_a_second_block_what_is_missing_is_named(width: int) -> None:
    lines = printed(COSTS, width, split=False, optional=("measure 8", "measure 2"))
    assert sum("──" in line for line in lines) == 1
    said = re.sub(r"\s+", " ", " ".join(lines)).partition("not shown: ")[2].strip()
    missing = tuple(said.split(", ")) if said else ()
    assert set(missing) <= set(COSTS[0]) - {"layer"} and (width < 200) == bool(missing)
    # The optional ones go first, and the others from the last on
    order = ["measure 8", "measure 2", "none", *(f"measure {at}" for at in (7, 6, 5, 4, 3, 1, 0))]
    assert set(missing) == set(order[: len(missing)])
    assert numbers_in(COSTS, without=missing) <= whole_numbers(lines)


def test_keys_that_name_a_row_together_are_left_out_from_the_last_on() -> None:
    rows = [{"optim.lr": "0.00012345", "optim": "momentum", "seed": "0", " score": "0.5000", " status": "done"}]
    lines = printed(rows, 30, keys=("optim.lr", "optim", "seed"), headings={"optim.lr": "lr"}, split=False)
    assert "0.00012345" in lines[3] and "0.5000" in lines[3] and "done" in lines[3]
    assert lines[-1].split() == ["not", "shown:", "optim,", "seed"] and "lr" in lines[1].split()


def test_names_that_differ_by_a_space_have_one_heading() -> None:
    lines = printed([{"loss": "bce", " loss": 0.25}], 80)
    assert lines[1].split() == ["loss", "loss"] and lines[3].split() == ["bce", "0.2500"]


def test_optional_columns_make_room_for_the_name_of_a_row() -> None:
    # 80 letters, for which 40 are kept
    name = "optim=momentum,optim.lr=0.00012345,model.hidden=[128,64],data.batch_size=64,seed=12"
    rows = [{"trial": name, " epoch": "12/40", " score": "0.5000", " left": "10:03"}]
    for width, shown in ((56, "score"), (63, "epoch score"), (64, "epoch score left")):
        lines = printed(rows, width, optional=(" left", " epoch"), split=False)
        assert lines[1].split() == ["trial", *shown.split()], width
        assert name in "".join(line[:42].strip() for line in lines)


def test_text_is_folded_at_spaces_and_commas_then_at_punctuation() -> None:
    assert fold("optim=adam,optim.lr=0.003", 15) == ["optim=adam,", "optim.lr=0.003"]
    assert fold("optim=adam-lr=1e-05-seed=0", 12) == ["optim=adam-", "lr=1e-05-", "seed=0"]
    assert fold("optim.lr=0.003", 9) == ["optim.lr=", "0.003"]
    assert fold("val/accuracy (last)", 14) == ["val/accuracy", "(last)"]
    assert fold("label_smoothing", 10) == ["label_", "smoothing"]
    assert fold("a difference of -0.0051 ± 0.0214", 14) == ["a difference", "of -0.0051 ±", "0.0214"]
    assert fold("1e-05,2e-05", 6) == ["1e-05,", "2e-05"]
    assert fold("日本語", 4) == ["日本", "語"] and fold("", 4) == [""]
    assert fold("e\u0301e\u0301e\u0301", 2) == ["e\u0301e\u0301", "e\u0301"]


def test_folding_loses_no_letter() -> None:
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(draw.choices("ab0.5,=-_ /(日é\u0301[", k=draw.randint(1, 40))).strip()
        width = draw.randint(2, 20)
        lines = fold(text, width)
        assert "".join(lines).replace(" ", "") == text.replace(" ", "") and max(map(width_of, lines)) <= width


def test_control_characters_are_shown_and_lines_joined() -> None:
    [row] = [line for line in printed([{"a": "x\x1b[31m\ny\tz", "n": 1}], 80) if "x" in line]
    assert row.split() == ["x\\x1b[31m", "y", "z", "1"]


def test_left_out_rows_are_counted() -> None:
    assert rows_note(20, 24, "points", "the best first") == ["20 of 24 points, the best first"]
    assert rows_note(24, 24, "points", "the best first") == []


def test_no_other_module_draws_a_table() -> None:
    drawing = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "rich.table":
                drawing |= {path.name for alias in node.names if alias.name == "Table"}
    assert drawing == {"screen_tables.py"}
