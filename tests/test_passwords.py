"""Passwords in URLs are neither printed nor written."""

import io
from contextlib import redirect_stderr

import pytest

from runner.__main__ import main
from runner.errors import ConfigError
from runner.passwords import masked, masked_reason, masked_url, masked_word
from runner.status import ending, print_error

WORDS = ["secret", "p%40ss", "a:b", "s/ash", "p@ss", "x" * 200, "ü", "=", "'", "{a}"]


@pytest.mark.parametrize("secret", WORDS)
@pytest.mark.parametrize("kind", ["postgresql", "postgresql+psycopg", "mysql+pymysql", "https"])
def test_a_password_in_a_url_is_hidden(secret, kind):
    url = f"{kind}://lab:{secret}@host:5432/db?sslmode=require"
    hidden = f"{kind}://lab:***@host:5432/db?sslmode=require"
    assert masked_url(url) == hidden
    assert masked(f"cannot open {url} now") == f"cannot open {hidden} now"
    assert masked_word(f"hydra.sweeper.storage={url}") == f"hydra.sweeper.storage={hidden}"
    assert masked_word(f"hydra.sweeper.storage='{url}'") == f"hydra.sweeper.storage='{hidden}'"


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///a:b@c.db",
        "sqlite:////home/me/x.db",
        "postgresql://lab@host/db",
        "postgresql://host:5432/db",
        "postgresql://host/db?application_name=a@b",
        "optim.lr=0.1",
        "note='at 10:30, mail a@b.c'",
        "file://x",
    ],
)
def test_other_texts_stay(text):
    assert masked(text) == masked_url(text) == masked_word(text) == text


def test_a_password_in_the_query_is_hidden_too():
    url = "postgresql://host/db?user=lab&password=secret&sslmode=require"
    assert masked_url(url) == masked(url) == "postgresql://host/db?user=lab&password=***&sslmode=require"


def test_what_a_driver_says_is_without_the_password():
    url = "postgresql://lab:pa%3Ass@word@host/db"
    for text in ("no host 'word@host'", "bad pa%3Ass@word", "login pa:ss@word failed"):
        assert "ss" not in masked_reason(text, url).replace("***", "") or "word" not in masked_reason(text, url)


@pytest.mark.parametrize("kind", [ConfigError, ValueError, SystemExit])
def test_no_error_shows_a_password(kind):
    error = kind("cannot use postgresql://lab:secret@host/db")
    try:
        raise error
    except kind:
        with redirect_stderr(io.StringIO()) as shown:
            print_error(error)
    assert "secret" not in shown.getvalue() and "lab:***@host" in shown.getvalue()
    assert "secret" not in ending(error).reason


def test_a_long_url_is_cut_after_its_password_is_hidden(capsys):
    url = f"postgresql://lab:{'secret' * 30}@host/db"
    for words in (["optim.lr=" + url], [f"hydra.sweeper.foo={url}"], [f"hydra.sweeper.n_trials={url}"], [url, "x"]):
        assert main(["-m", "hydra/sweeper=optuna", *words]) == 2
        assert "secret" not in capsys.readouterr().err
