"""Config files are read by libyaml as OmegaConf reads them."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from runner.errors import ConfigError
from runner.plain_yaml import check_interpolations, conf_folder, load_config

SHIPPED = sorted(conf_folder().rglob("*.yaml"))
NUMBERS = [
    "1e-3",
    "1e3",
    "-2E+4",
    "1_0e3",
    "1.e5",
    "+.5",
    ".5e3",
    "1__0e3",
    "_1e3",
    "1e",
    "e3",
    "1e-3x",
    "1.5",
    "1_000",
]
WORDS = [
    "2020-01-01",
    "2020-01-01 10:00:00",
    "yes",
    "off",
    "~",
    "null",
    ".inf",
    "-.INF",
    ".nan",
    "0x1f",
    "0b11",
    "'1e3'",
]


def by_omegaconf(text):
    return OmegaConf.to_container(OmegaConf.create(text))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_shipped_file_is_read_as_by_omegaconf(path):
    assert load_config(path) == by_omegaconf(path.read_text())


@pytest.mark.parametrize("word", [*NUMBERS, *WORDS])
def test_a_scalar_is_read_as_by_omegaconf(tmp_path, word):
    file, text = tmp_path / "a.yaml", f"a: {word}\n{word}: [{word}]\n" if word not in ("~", "null") else f"a: {word}\n"
    file.write_text(text)
    # `repr` tells 1 from 1.0, and nan equals nan
    assert repr(load_config(file)) == repr(by_omegaconf(text))


@settings(max_examples=300, deadline=None)
@given(word=st.text("0123456789._eE+-", min_size=1, max_size=9))
def test_a_word_that_is_nearly_a_number_is_read_as_by_omegaconf(tmp_path_factory, word):
    file, text = tmp_path_factory.getbasetemp() / "number.yaml", f"a: {word}\n"
    file.write_text(text)
    try:
        expected = by_omegaconf(text)
    except (ValueError, yaml.YAMLError):  # PyYAML takes 0b_ and the like for numbers, and cannot convert them
        expected = None
    try:
        found = load_config(file)
    except ConfigError:  # also for numbers in base 8
        return
    assert repr(found) == repr(expected)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: {c: 1, c: 2}\n", ":2: found duplicate key c"),
        ("a: 1\na: 1\n", ":2: found duplicate key a"),
        ("a: 1\n~: 2\n", ":2: a key must not be null"),
        ("a: 1\n? [b]\n: 2\n", ":2: found unhashable key"),
    ],
)
def test_keys_that_omegaconf_refuses_are_refused_with_their_line(tmp_path, text, problem):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load_config(tmp_path / "a.yaml")
    assert str(refusal.value) == f"{tmp_path / 'a.yaml'}{problem}"
    with pytest.raises(Exception):  # noqa: B017  (yaml's and OmegaConf's own)
        by_omegaconf(text)


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n"])
def test_an_empty_file_is_an_empty_mapping(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    assert load_config(tmp_path / "a.yaml") == {} == by_omegaconf(text or "# nothing")


@pytest.mark.parametrize("text", ["${a.b}", "x ${a} ${b[0]}", r"\${oc.env:HOME}", "$a", "{$"])
def test_references_and_plain_texts_are_taken(text):
    check_interpolations({"a": [text]})


@pytest.mark.parametrize("text", ["${oc.env:HOME}", "${", "${a", r"\\${oc.env:HOME}", "${a} ${oc.env:HOME}"])
def test_resolvers_and_broken_references_are_refused(text):
    with pytest.raises(ConfigError, match="must be a value, or a reference to one"):
        check_interpolations({"a": [text]})
