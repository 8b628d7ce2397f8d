"""What the README says of the program: its tables, its numbers, its errors."""
import os
import re
import subprocess
import sys

import pytest

import userstate
from support.authority import tls_peer
from support.files import SOURCE
from support.interpreters import PYTHONS, hide
from support.peers import DEAD, Peer, answer, document, hang
from support.readme import README


def test_the_tables_name_every_option_variable_status_and_default():
    for word in userstate.OPTIONS:
        assert "--" + word.rstrip("=") in README
    for word in (*re.findall("USERSTATE_[A-Z_]+", userstate.USAGE), "SSL_CERT_FILE",
                 *userstate.METADATA_URL.split(), *userstate.STATES):
        assert f"`{word}`" in README
    for status in (0, 1, 2, 75, 130):
        assert re.search(rf"^\| {status} \|", README, re.M)
    assert "2026-06-30" in README


def test_the_numbers_are_those_of_the_program():
    pauses = ", ".join(map(str, userstate.PAUSES))
    for words in (f"| `--timeout SECONDS` | `USERSTATE_TIMEOUT` | {userstate.TIMEOUT} |",
                  f"| `--deadline SECONDS` | `USERSTATE_DEADLINE` | {userstate.DEADLINE} |",
                  f"after pauses of {pauses}, 15 ... seconds",
                  f"makes a pause longer, up to {userstate.RETRY_AFTER_MOST} seconds"):
        assert words in README
    assert f"of one try, {userstate.TIMEOUT};" in userstate.USAGE
    assert f"of one report, {userstate.DEADLINE}\n" in userstate.USAGE


def test_the_readme_names_a_python_that_is_tested():
    assert "Python 3.6" in README
    if "3.6" not in PYTHONS:
        pytest.skip("no Python 3.6 here; oldest is " + next(iter(PYTHONS)))


def speak_http(connection, peer):
    connection.recv(65536)
    connection.sendall(answer(400))


# The table "If it fails": what brings each of its lines about, as (options, environment,
# the start of the program) or the answers of a peer.
TABLE = re.findall("`([^`]+)`", "".join(
    line.split("|")[1] for line in re.search("## If it fails(.*?)\n## ", README, re.S).group(1)
    .splitlines() if line.startswith("| `")))
PROVOKED = {
    "Connection refused": lambda: said("--url", DEAD),
    "Name or service not known": lambda: said("--url", "http://nobody.invalid/"),
    "timed out": lambda: peer_said(hang),
    "switched off on 2026-06-30": lambda: said(),
    "HTTP 404": lambda: peer_said(answer(404)),
    "no user_state_url": lambda: peer_said(document(x="y")),
    "not JSON": lambda: peer_said(answer(200, b"<html>")),
    "no ssl": lambda: peer_said(hang, "https", start=hide("ssl")),
    "No module named": lambda: said(start=hide("json")),
    "redirect to": lambda: peer_said(answer(301, b"", "Location: http://x.example/")),
    "incomplete download": lambda: said(source=SOURCE[:20000].rpartition(b"\n\ndef")[0]),
    "refused at try N": lambda: peer_said(answer(403)),
    "gave up at try N": lambda: said("--url", DEAD),
    "no TLS": lambda: peer_said(speak_http, "https"),
}
PROVOKED["Temporary failure in name resolution"] = PROVOKED["Name or service not known"]
OF_TLS = {"certificate verify failed": ("good", None), "is the clock right?": ("expired", "ca")}


def said(*options, start="", source=SOURCE, deadline="0.5", **environment):
    """Return what an event with these options says on stderr."""
    ended = subprocess.run([sys.executable, "-B", "-c", start + source.decode(), "--deadline",
                            deadline, *options, "running", "1000", "x"],
                           env=dict(environment, PATH=os.environ["PATH"]), timeout=60,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert ended.returncode in (1, 75)
    return ended.stderr.decode()


def peer_said(script, scheme="http", **options):
    with Peer(script) as peer:
        return said("--metadata-url", peer.url.replace("http", scheme), **options)


@pytest.mark.parametrize("line", TABLE)
def test_the_program_says_the_line_of_the_table(line, request):
    if line in OF_TLS:
        authority = request.getfixturevalue("authority")
        name, known = OF_TLS[line]
        with tls_peer(authority, name) as peer:
            environment = {"SSL_CERT_FILE": str(authority / "ca.pem")} if known else {}
            text = said("--url", peer.url, **environment)
    else:
        text = PROVOKED[line]()
    line = line.replace("at try N", "at try ")
    if line in ("Name or service not known", "Temporary failure in name resolution"):
        assert re.search("name|Name|resol", text)  # which of them depends on the machine
    else:
        assert line in text
