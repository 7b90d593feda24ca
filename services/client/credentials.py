"""The token that the command line shows: from the environment, or of a service that was started in this folder."""

import os
from pathlib import Path

import httpx

TOKEN, TOKEN_FILE = "FASTERSEG_TOKEN", "FASTERSEG_TOKEN_FILE"  # the variables
LOCAL_FILE = Path(".fasterseg/api.token")  # written by `fasterseg up`
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")  # the only ones that are shown a token of this machine


def find_token(url: str) -> str | None:
    """The token for the service at an address; none where there is none.

    Raises:
        OSError: the file that holds it cannot be read.
    """
    if token := os.environ.get(TOKEN):
        return token
    if file := os.environ.get(TOKEN_FILE):
        return Path(file).read_text().strip()
    if httpx.URL(url).host in LOCAL_HOSTS and LOCAL_FILE.is_file():
        return LOCAL_FILE.read_text().strip()
    return None
