"""No line shows a password, a token or the metadata document."""
import re

import pytest

import userstate
from support.peers import ACCEPTED, Peer, reported
from support.processes import EVENT_WORDS


def test_secrets_of_an_invalid_address_are_not_shown(capsys):
    for url in ("http://user:s3cret@h/?token=s3cret#s3cret", "ftp://s3cret@h/",
                "http://h:99999/?s3cret", "http://u:s3cret@h:x/", "http://u:s3cret#x@h/",
                "http://u:s3cret?x@h/", "http://u:s3cret/x@h/", "u:s3cret@h", "x@s3cret",
                "http://s3cret\n@h/"):
        assert userstate.main(["--url", url, "running", "1000", "x"]) == 2
    assert "s3cret" not in capsys.readouterr().err


SECRETS = ["http://user:s3cret@h/?token=s3cret", "https://h/?token=s3cret", "user:s3cret@h",
           "ftp://s3cret@h/", "x" * 73 + ":s3cret@h/", "HTTP://u:s3cret@h",
           " http://u:s3cret@h/",
           "u" * 70 + "http://s3cret@h/", "http://u:s3cret@h:x/#s3cret"]
PLACES = {
    "behind the operands": ["running", "1000", "hi", "--url", "SECRET"],
    "in place of the state": ["SECRET", "1000", "x"], "as the code": ["running", "SECRET", "x"],
    "as seconds": ["--timeout", "SECRET", *EVENT_WORDS], "deadline": ["--deadline=SECRET", *EVENT_WORDS],
    "as an option": ["--SECRET", *EVENT_WORDS], "as letters": ["-SECRET", *EVENT_WORDS],
    "value of a flag": ["--verbose=SECRET", *EVENT_WORDS], "mistyped": ["--ulr=SECRET", *EVENT_WORDS],
    "an only operand": ["SECRET"], "as metadata": ["--metadata-url=SECRET bogus",
                                                   "url"],
    "code of run": ["run", "SECRET", "m", "true"], "message of run": ["run", "SECRET"],
    "command": ["run", "1000", "m", "SECRET"], "every": ["run", "--every=SECRET", "1000", "m",
                                                         "true"],
    "log": ["run", "--log", "/nowhere/SECRET", "1000", "m", "true"],
    "option of run": ["run", "--SECRET", "1000", "m", "true"],
    "url": ["--url", "SECRET", "bogus", "1000", "x"]}


@pytest.mark.parametrize("place", PLACES)
def test_no_error_shows_what_looks_like_an_address(place, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    with Peer(ACCEPTED) as peer:
        for secret in SECRETS:
            words = [word.replace("SECRET", secret) for word in PLACES[place]]
            first = [] if place == "as metadata" else ["--deadline=0.05", "--url", peer.url]
            assert userstate.main([*first, *words]) in (2, 127), words
            err = capfd.readouterr().err
            assert err and not re.search("s3c|token", err), err
        assert not any("s3c" in message for _, message in reported(peer))


@pytest.mark.parametrize("secret", SECRETS)
def test_no_error_of_a_call_shows_what_looks_like_an_address(secret):
    for call in (lambda: userstate.build_event(secret, 1000, "x"),
                 lambda: userstate.build_event("running", secret, "x"),
                 lambda: userstate.build_event("running", 1000, secret.encode()),
                 lambda: userstate.step(secret, "x"),
                 lambda: userstate.step(1000, "x", every=secret),
                 lambda: userstate.fetch_metadata(timeout=secret),
                 lambda: userstate.fetch_metadata(**{secret: 1}),
                 lambda: userstate.fetch_metadata(deadline=[secret])):
        with pytest.raises(userstate.EventError) as caught:
            call()
        assert not re.search("s3c|token", str(caught.value))
