"""What the program says of itself: the help and the version."""
import pytest

import userstate
from support.processes import run

HELP = """\
usage: userstate [OPTIONS] STATE CODE MESSAGE
       userstate [OPTIONS] run [--every SECONDS] [--log FILE] CODE MESSAGE [--] COMMAND
       userstate [OPTIONS] url
STATE: running, succeeded, failed, or an exit status, 0 to 255; CODE: 1000 to 1099
OPTIONS: -n, --dry-run: print the JSON only; -v, --verbose; -h, --help; --version;
  --metadata-url URL, or USERSTATE_METADATA_URL: where to ask for the address of events;
  --url URL, or USERSTATE_URL: that address itself;
  --timeout SECONDS, or USERSTATE_TIMEOUT: of one try, 10;
  --deadline SECONDS, or USERSTATE_DEADLINE: of one report, 150
status: 0 accepted, 1 refused, 2 invalid, 75 gave up, 130 interrupted, or COMMAND's
"""


def test_help_is_this():
    assert run("--help") == (0, HELP, "")


@pytest.mark.parametrize("words, start", [
    (["-h"], "usage: userstate "), (["--help"], "usage: userstate "),
    (["-n", "--help", "nonsense"], "usage: userstate "),
    (["--version"], f"userstate {userstate.__version__}\n")])
def test_help_and_version(words, start, edge_python):
    for how, flags in (("file", ["-OO"]), ("pipe", []), ("-c", ["-I"])):
        ended = run(*words, how=how, flags=flags, python=edge_python)
        assert ended.status == 0 and ended.err == "" and ended.out.startswith(start)


def test_help_names_every_option_variable_and_status():
    for word in ("--metadata-url", "--url", "--timeout", "--deadline", "--dry-run", "-n",
                 "--verbose", "-v", "--help", "-h", "--version", "USERSTATE_METADATA_URL",
                 "USERSTATE_URL", "USERSTATE_TIMEOUT", "USERSTATE_DEADLINE", "75", "130"):
        assert word in userstate.USAGE


def test_help_is_there_behind_run_as_well(capsys):
    for words in (["run", "-h"], ["run", "--help"], ["run", "--every=5", "-h", "1010"]):
        assert userstate.main(words) == 0
        assert capsys.readouterr().out.startswith("usage: ")
