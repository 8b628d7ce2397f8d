"""What the README says of the program: its tables, its numbers, its errors."""
import re

import pytest

import userstate
from support.authority import tls_peer
from support.files import SOURCE
from support.interpreters import PYTHONS, hide
from support.peers import DEAD, Peer, answer, document, hang
from support.processes import EVENT_WORDS, run, run_code
from support.readme import README, SENTENCES


@pytest.mark.parametrize("option", userstate.OPTIONS)
def test_the_reference_names_the_option(option):
    assert "--" + option.rstrip("=") in README


@pytest.mark.parametrize("word", sorted({
    *re.findall("USERSTATE_[A-Z_]+", userstate.USAGE), "SSL_CERT_FILE",
    *userstate.METADATA_URL.split(), *userstate.STATES}))
def test_the_reference_has_as_code(word):
    assert f"`{word}`" in README


@pytest.mark.parametrize("status", [0, 1, 2, 75, 130])
def test_the_reference_has_a_row_for_status(status):
    assert re.search(rf"^\| {status} \|", README, re.M)


def test_the_day_is_named_that_the_defaults_were_switched_off():
    assert "2026-06-30" in README


@pytest.mark.parametrize("words", [
    f"| `--timeout SECONDS` | `USERSTATE_TIMEOUT` | {userstate.TIMEOUT} |",
    f"| `--deadline SECONDS` | `USERSTATE_DEADLINE` | {userstate.DEADLINE} |",
    f"| the receiver, later on | {userstate.DEADLINE} seconds for each event;",
    f"after pauses of {', '.join(map(str, userstate.PAUSES))}, 15 ... seconds",
    f"makes a pause longer, up to {userstate.RETRY_AFTER_MOST} seconds"])
def test_the_readme_has_the_number_of_the_program(words):
    assert words in SENTENCES


@pytest.mark.parametrize("words", [
    f"of one try, {userstate.TIMEOUT};", f"of one report, all tries, {userstate.DEADLINE}\n"])
def test_the_usage_has_the_number_of_the_program(words):
    assert words in userstate.USAGE


def test_the_readme_names_a_python_that_is_tested():
    assert "Python 3.6" in README
    if "3.6" not in PYTHONS:
        pytest.skip("no Python 3.6 here; oldest is " + next(iter(PYTHONS)))


# The table "If it fails": its lines, and what brings each of them about.
SECTION = re.search("## If it fails(.*?)\n## ", README, re.S).group(1)
TABLE = [line for row in re.findall(r"^\| (`[^|]*)", SECTION, re.M)
         for line in re.findall("`([^`]+)`", row)]
REFUSED_AT_ONCE = "refused at try N"
GAVE_UP = "gave up at try N"


def speak_http(connection, peer):
    connection.recv(65536)
    connection.sendall(answer(400))


# The operands of an event, and the code that runs before the program.
OF_CALLS = {
    "Connection refused": (["--url", DEAD], ""),
    "switched off on 2026-06-30": ([], ""),
    "No module named": ([], hide("json")),
    GAVE_UP: (["--url", DEAD], ""),
}
# What the metadata service answers, the scheme of its address, and the code before.
OF_METADATA = {
    "timed out": (hang, "http", ""),
    "HTTP 404": (answer(404), "http", ""),
    "no user_state_url": (document(x="y"), "http", ""),
    "not JSON": (answer(200, b"<html>"), "http", ""),
    "more than 1048576 bytes": (answer(200, b" " * (1 << 20) + b"{}"), "http", ""),
    "redirect to": (answer(301, b"", "Location: http://x.example/"), "http", ""),
    REFUSED_AT_ONCE: (answer(403), "http", ""),
    "no TLS": (speak_http, "https", ""),
    "no ssl": (hang, "https", hide("ssl")),
}
# Which of them a system says depends on its resolver.
OF_NAMES = ["Name or service not known", "Temporary failure in name resolution"]
OF_DOWNLOADS = ["incomplete download"]
OF_OTHERS = ["HTTP 403"]
OF_CERTIFICATES = ["certificate verify failed", "is the clock right?"]


def said_by_an_event(*options, **how):
    """Return what an event with these options, which fails, says on stderr."""
    done = run("--deadline", "0.5", *options, *EVENT_WORDS, **how)
    assert done.status in (1, 75)
    return done.err


def test_each_line_of_the_table_has_its_test():
    assert sorted(TABLE) == sorted(
        [*OF_CALLS, *OF_METADATA, *OF_NAMES, *OF_DOWNLOADS, *OF_OTHERS, *OF_CERTIFICATES])


@pytest.mark.parametrize("line", OF_CALLS)
def test_a_call_says(line):
    options, before = OF_CALLS[line]
    assert line.replace("try N", "try ") in said_by_an_event(*options, before=before)


@pytest.mark.parametrize("line", OF_METADATA)
def test_a_call_says_of_the_metadata(line):
    script, scheme, before = OF_METADATA[line]
    with Peer(script) as peer:
        url = peer.url.replace("http", scheme)
        err = said_by_an_event("--metadata-url", url, before=before)
    assert line.replace("try N", "try ") in err


def test_a_call_says_that_a_name_cannot_be_looked_up():
    err = said_by_an_event("--url", "http://nobody.invalid/")
    assert re.search("name|Name|resol", err)


def test_a_call_says_that_the_address_is_that_of_another_machine(receiver):
    address = f"{receiver.url}/devices/192.0.2.7/events"
    assert "HTTP 403" in said_by_an_event("--url", address)
    assert "HTTP 403" in said_by_an_event(
        "--metadata-url", f"{receiver.url}/devices/192.0.2.7/metadata")
    for mended in (address.replace("192.0.2.7", "NAME"), f"{receiver.url}/events"):
        assert run("--url", mended, *EVENT_WORDS) == (0, "", "")


def test_half_a_download_says_that_it_is_incomplete():
    half = SOURCE[:20000].rpartition(b"\n\ndef")[0].decode()
    done = run_code(half, *EVENT_WORDS)
    assert done.status == 1
    assert OF_DOWNLOADS[0] in done.err


def test_a_call_says_that_the_authority_is_not_known(authority):
    with tls_peer(authority, "good") as peer:
        assert "certificate verify failed" in said_by_an_event(url=peer.url)


def test_a_call_asks_for_the_clock_if_the_certificate_is_expired(authority):
    known = {"SSL_CERT_FILE": str(authority / "ca.pem")}
    with tls_peer(authority, "expired") as peer:
        assert "is the clock right?" in said_by_an_event(url=peer.url, env=known)
