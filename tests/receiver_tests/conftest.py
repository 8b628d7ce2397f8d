"""The fixtures of the receiver's tests."""
import subprocess

import pytest

from support.browser import CHROMIUM, DRIVER, Browser
from support.tools import needs


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """The files of a certificate for 127.0.0.1 and its key."""
    needs("openssl")
    folder = tmp_path_factory.mktemp("certificate")
    names = str(folder / "cert"), str(folder / "key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-out",
                    names[0], "-keyout", names[1], "-days", "9", "-subj", "/CN=x", "-addext",
                    "subjectAltName=IP:127.0.0.1"], check=True, stderr=subprocess.PIPE)
    return names


@pytest.fixture(scope="session")
def browser():
    if not (DRIVER and CHROMIUM):
        pytest.skip("chromium and chromedriver are not installed")
    with Browser() as browser:
        yield browser
