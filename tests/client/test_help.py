"""What the program says of itself: the help and the version."""
import pytest

import userstate
from support.processes import run

HELP = """\
usage: userstate [OPTIONS] STATE CODE MESSAGE
 or: userstate [OPTIONS] run [--every SECONDS] [--log FILE] CODE MESSAGE [--] COMMAND
 or: userstate [OPTIONS] url
The first puts an event on the timeline. STATE: running, succeeded, failed, or an exit
  status (0: succeeded, 1 to 255: failed); CODE: 1000 to 1099; MESSAGE: any text.
run reports that COMMAND is running, and how it ended. Its status is that of COMMAND.
  --every SECONDS: report as often that it is still running
  --log FILE: append its output to FILE; if it fails, report the last line
url prints the address that events are posted to.
OPTIONS: -n, --dry-run: print the JSON only; -v, --verbose; -h, --help; --version;
  --url URL, or USERSTATE_URL: the address that events are posted to;
  --metadata-url URL, or USERSTATE_METADATA_URL: where to ask for that address;
  --timeout SECONDS, or USERSTATE_TIMEOUT: of one try, 10;
  --deadline SECONDS, or USERSTATE_DEADLINE: of one report, all tries, 150
status: 0 accepted, 1 refused, 2 invalid, 75 gave up, 130 interrupted, or COMMAND's
"""


def test_help_is_this():
    assert run("--help") == (0, HELP, "")


@pytest.mark.parametrize("words, first", [
    (["-h"], "usage: userstate "), (["--help"], "usage: userstate "),
    (["-n", "--help", "nonsense"], "usage: userstate "),
    (["run", "-h"], "usage: userstate "), (["--version", "--help"], "usage: userstate "),
    (["--version"], f"userstate {userstate.__version__}\n")], ids=str)
@pytest.mark.parametrize("how, flags", [("file", ["-OO"]), ("pipe", []), ("-c", ["-I"])])
def test_help_and_version(words, first, how, flags, edge_python):
    done = run(*words, how=how, flags=flags, python=edge_python)
    assert done.status == 0
    assert done.out.startswith(first)
    assert done.err == ""


@pytest.mark.parametrize("word", [
    "--metadata-url", "--url", "--timeout", "--deadline", "--dry-run", "-n", "--verbose", "-v",
    "--help", "-h", "--version", "--every", "--log", "run reports", "url prints",
    "USERSTATE_METADATA_URL", "USERSTATE_URL",
    "USERSTATE_TIMEOUT", "USERSTATE_DEADLINE", "75", "130"])
def test_help_names_every_option_variable_and_status(word):
    assert word in userstate.USAGE


@pytest.mark.parametrize("words", [
    ["run", "-h"], ["run", "--help"], ["run", "--every=5", "-h", "1010"]], ids=" ".join)
def test_help_is_there_behind_run_as_well(words, capsys):
    assert userstate.main(words) == 0
    assert capsys.readouterr().out.startswith("usage: ")
