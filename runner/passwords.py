"""Passwords in the URLs of databases: nothing that is written or printed contains them."""

from __future__ import annotations

import re
from urllib.parse import unquote

HIDDEN = "***"
# The last @ of a word ends the password, which may hold any other character
_IN_URL = re.compile(r"([A-Za-z][\w+.-]*://[^:/@\s]*):(?![/\s])([^\s]*)@")
_WHOLE_URL = re.compile(r"([A-Za-z][\w+.-]*://[^:/@]*):(.*)@", re.DOTALL)
_IN_QUERY = re.compile(r"([?&](?:password|passwd|sslpassword)=)[^&\s'\"]+", re.IGNORECASE)


def masked(text: str) -> str:
    """Return a text with `***` for the password of each URL in it."""
    if "://" not in text:
        return text
    return _IN_QUERY.sub(rf"\1{HIDDEN}", _IN_URL.sub(rf"\1:{HIDDEN}@", text))


def masked_url(url: str) -> str:
    """Return one URL with `***` for its password, which may hold spaces."""
    return _IN_QUERY.sub(rf"\1{HIDDEN}", _WHOLE_URL.sub(rf"\1:{HIDDEN}@", url))


def masked_word(word: str) -> str:
    """Return an override (`key=value`) as it may be stored: without the password of a URL."""
    key, equals, text = word.partition("=")
    return f"{key}{equals}{masked_url(text)}" if "://" in text else word


def masked_reason(reason: str, url: str) -> str:
    """Return an error's text without the password of the URL that it is about."""
    login = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    secrets = {login, unquote(login), *login.split("@")}
    for secret in sorted((each for each in secrets if len(each) > 1), key=len, reverse=True):
        reason = reason.replace(secret, HIDDEN)
    return masked(reason)
