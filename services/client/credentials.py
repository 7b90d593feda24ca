"""The token that the command line shows: from the environment, or of a service that was started in this folder."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import httpx

TOKEN, TOKEN_FILE = "FASTERSEG_TOKEN", "FASTERSEG_TOKEN_FILE"  # the variables
LOCAL_FILE = Path(".fasterseg/api.token")  # written by `fasterseg up`
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")  # the only ones that are shown a token of this machine


@dataclass(frozen=True, kw_only=True)
class FoundToken:
    secret: str
    place: str  # the variable or file that holds it


def find_token(url: str) -> FoundToken | None:
    """The token for the service at an address; none where there is none.

    Raises:
        OSError: the file that holds it cannot be read.
        ValueError: what is there can be no token.
    """
    if token := os.environ.get(TOKEN):
        return _checked(token, TOKEN)
    if file := os.environ.get(TOKEN_FILE):
        return _checked(Path(file).read_text(errors="replace"), file)
    if httpx.URL(url).host in LOCAL_HOSTS and LOCAL_FILE.is_file():
        return _checked(LOCAL_FILE.read_text(errors="replace"), str(LOCAL_FILE))
    return None


def _checked(token: str, place: str) -> FoundToken:
    if re.fullmatch(r"[ -~]+", token.strip()) is None:
        raise ValueError(f"{place} holds no token, which is one line of ASCII characters")
    return FoundToken(secret=token.strip(), place=place)
