"""No line shows a password or a token."""
import re

import pytest

import userstate
from support.peers import ACCEPTED, Peer, answer, reported
from support.processes import EVENT_WORDS


@pytest.mark.parametrize("url", [
    "http://user:s3cret@h/?token=s3cret#s3cret", "ftp://s3cret@h/", "http://h:99999/?s3cret",
    "http://u:s3cret@h:x/", "http://u:s3cret#x@h/", "http://u:s3cret?x@h/",
    "http://u:s3cret/x@h/", "u:s3cret@h", "x@s3cret", "http://s3cret\n@h/"], ids=ascii)
def test_the_secret_of_an_invalid_address_is_not_shown(url, capsys):
    assert userstate.main(["--url", url, "running", "1000", "x"]) == 2
    assert "s3cret" not in capsys.readouterr().err


SECRETS = ["http://user:s3cret@h/?token=s3cret", "https://h/?token=s3cret", "user:s3cret@h",
           "ftp://s3cret@h/", "x" * 73 + ":s3cret@h/", "HTTP://u:s3cret@h",
           " http://u:s3cret@h/", "u" * 70 + "http://s3cret@h/", "http://u:s3cret@h:x/#s3cret"]
PLACES = {
    "address": ["--url", "SECRET", "bogus", "1000", "x"],
    "address of the metadata": ["--metadata-url=SECRET bogus", "url"],
    "timeout": ["--timeout", "SECRET", *EVENT_WORDS],
    "deadline": ["--deadline=SECRET", *EVENT_WORDS],
    "option": ["--SECRET", *EVENT_WORDS],
    "option that is mistyped": ["--ulr=SECRET", *EVENT_WORDS],
    "letters": ["-SECRET", *EVENT_WORDS],
    "value of a flag": ["--verbose=SECRET", *EVENT_WORDS],
    "behind the operands": ["running", "1000", "hi", "--url", "SECRET"],
    "an only operand": ["SECRET"],
    "state": ["SECRET", "1000", "x"],
    "code": ["running", "SECRET", "x"],
    "code of run": ["run", "SECRET", "m", "true"],
    "message of run": ["run", "SECRET"],
    "command of run": ["run", "1000", "m", "SECRET"],
    "option of run": ["run", "--SECRET", "1000", "m", "true"],
    "seconds of run": ["run", "--every=SECRET", "1000", "m", "true"],
    "log of run": ["run", "--log", "/nowhere/SECRET", "1000", "m", "/nowhere/x"],
}


@pytest.mark.parametrize("place", PLACES)
def test_no_error_shows_what_looks_like_an_address(place, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setenv("USERSTATE_DEADLINE", "0.05")
    with Peer(ACCEPTED) as peer:
        monkeypatch.setenv("USERSTATE_URL", peer.url)
        for secret in SECRETS:
            words = [word.replace("SECRET", secret) for word in PLACES[place]]
            assert userstate.main(words) in (2, 127), words
            err = capfd.readouterr().err
            assert err
            assert not re.search("s3c|token", err)
        for _, message in reported(peer):
            assert "s3c" not in message


CALLS = {
    "state": lambda secret: userstate.build_event(secret, 1000, "x"),
    "code": lambda secret: userstate.build_event("running", secret, "x"),
    "message": lambda secret: userstate.build_event("running", 1000, secret.encode()),
    "code of a step": lambda secret: userstate.step(secret, "x"),
    "seconds of a step": lambda secret: userstate.step(1000, "x", every=secret),
    "timeout": lambda secret: userstate.fetch_metadata(timeout=secret),
    "deadline": lambda secret: userstate.fetch_metadata(deadline=[secret]),
    "option": lambda secret: userstate.fetch_metadata(**{secret: 1}),
}


@pytest.mark.parametrize("place", CALLS)
@pytest.mark.parametrize("secret", SECRETS)
def test_no_error_of_a_call_shows_what_looks_like_an_address(place, secret):
    with pytest.raises(userstate.EventError) as caught:
        CALLS[place](secret)
    assert not re.search("s3c|token", str(caught.value))


def test_what_looks_like_an_address_is_said_to_be_hidden():
    with pytest.raises(userstate.EventError, match=r"^code \(hidden: an address\): must be "):
        userstate.build_event("running", "http://h/", "x")


@pytest.mark.parametrize("refusal", [
    answer(403, b'{"message": "upstream http://u:s3cret@h/x?token=1 says no"}'),
    answer(403, b'{"errors": ["see https://h/x?token=s3cret"]}'),
    b"HTTP/1.1 403 see http://u:s3cret@h/x?token=1\r\nContent-Length: 0\r\n\r\n",
    answer(301, b"", "Location: http://u:s3cret@h/?token=1")], ids=range(4))
def test_no_line_shows_the_user_or_query_of_an_address_in_an_answer(refusal, capsys):
    with Peer(refusal) as peer:
        assert userstate.main(["-v", "--url", peer.url, *EVENT_WORDS]) == 1
    err = capsys.readouterr().err
    assert "HTTP " in err
    assert not re.search("s3c|token", err)
