"""The options of the functions: keywords, which are looked at only by a call that uses them."""
import inspect
import time

import pytest

import userstate
from support.peers import ACCEPTED, DEAD, Peer, document
from support.processes import EVENT_WORDS

OPTIONS = {"metadata_url": None, "url": None, "timeout": None, "deadline": None,
           "dry_run": False, "verbose": False, "say": None, "clock": time.monotonic,
           "sleep": time.sleep}
NO_URL = {name: default for name, default in OPTIONS.items() if name != "url"}
# The other parameters, in order, and the options.
SIGNATURES = {
    "send_user_state_event": (["state", "code", "message"], OPTIONS),
    "fetch_metadata": ([], OPTIONS), "user_state_url": ([], OPTIONS),
    "post_event": (["event", "url"], NO_URL), "step": (["code", "message", "every"], OPTIONS)}


@pytest.mark.parametrize("name", SIGNATURES)
def test_they_are_keywords_with_names_and_defaults(name):
    operands, options = SIGNATURES[name]
    parameters = inspect.signature(getattr(userstate, name)).parameters.values()
    assert [parameter.name for parameter in parameters
            if parameter.kind == inspect.Parameter.POSITIONAL_OR_KEYWORD] == operands
    assert {parameter.name: parameter.default for parameter in parameters
            if parameter.kind == inspect.Parameter.KEYWORD_ONLY} == options


def test_a_step_repeats_nothing_by_default():
    assert inspect.signature(userstate.step).parameters["every"].default is None


def test_what_is_posted_and_where_may_be_keywords():
    with Peer(ACCEPTED) as peer:
        userstate.post_event(event={"a": 1}, url=peer.url)
        assert peer.events == [{"a": 1}]


def test_an_address_that_is_given_twice_is_a_type_error():
    """As with any other function of Python."""
    with pytest.raises(TypeError, match="url"):
        userstate.post_event({}, DEAD, url=DEAD)


def post(address, **options):
    userstate.post_event({}, address, **options)


def fetch(address, **options):
    assert userstate.fetch_metadata(metadata_url=address, **options)["user_state_url"] == DEAD


def ask(address, **options):
    assert userstate.user_state_url(metadata_url=address, **options) == DEAD


def return_itself(address, **options):
    assert userstate.user_state_url(url=address, **options) == address


def send(address, **options):
    userstate.send_user_state_event("running", 1000, "x", url=address, **options)


def report(address, **options):
    with userstate.step(1000, "x", url=address, **options):
        pass


def call_main(address, **options):
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    assert userstate.main([*words, "--url", address, *EVENT_WORDS]) == 0


# A call that is given an address, whether it asks there, and what else it does not look at.
UNUSED = {
    "post_event": (post, False, ["metadata_url"]),
    "fetch_metadata": (fetch, True, ["url"]),
    "user_state_url, which asks": (ask, True, []),
    "user_state_url": (return_itself, False, ["metadata_url"]),
    "send_user_state_event": (send, False, ["metadata_url"]),
    "step": (report, False, ["metadata_url"]),
    "command line": (call_main, False, ["metadata_url"])}


def peer_of(asks):
    return Peer(document(user_state_url=DEAD) if asks else ACCEPTED)


@pytest.mark.parametrize("variable", ["URL", "METADATA_URL"])
@pytest.mark.parametrize("name", UNUSED)
def test_a_variable_that_a_call_does_not_use_is_not_looked_at(name, variable, monkeypatch):
    call, asks, _ = UNUSED[name]
    monkeypatch.setenv(f"USERSTATE_{variable}", "garbage")
    with peer_of(asks) as peer:
        call(peer.url)


@pytest.mark.parametrize("variable", ["TIMEOUT", "DEADLINE"])
@pytest.mark.parametrize("name", UNUSED)
def test_a_variable_is_not_looked_at_beside_its_option(name, variable, monkeypatch):
    call, asks, _ = UNUSED[name]
    monkeypatch.setenv(f"USERSTATE_{variable}", "garbage")
    with peer_of(asks) as peer:
        call(peer.url, **{variable.lower(): 5})


@pytest.mark.parametrize("name, option", [
    (name, option) for name, (_, _, unused) in UNUSED.items() for option in unused])
def test_an_option_that_a_call_does_not_use_is_not_looked_at(name, option):
    call, asks, _ = UNUSED[name]
    with peer_of(asks) as peer:
        call(peer.url, **{option: "garbage"})


# An option, whose value is wrong, and what would be right.
WRONG = [("url", "garbage", "http(s)://host, without a user"),
         ("metadata_url", "garbage", "http(s)://host, without a user"),
         ("timeout", "soon", "seconds, above 0 and below 100000, like 10 or 0.5"),
         ("deadline", "100000", "seconds, above 0 and below 100000, like 10 or 0.5")]


@pytest.mark.parametrize("name, value, right", WRONG)
def test_what_is_wrong_with_an_option_names_it(name, value, right, monkeypatch):
    monkeypatch.setenv("USERSTATE_" + name.upper(), "5")
    with pytest.raises(userstate.EventError) as caught:
        userstate.send_user_state_event("running", 1000, "x", **{name: value})
    assert str(caught.value) == f"{name} '{value}': must be {right}"


@pytest.mark.parametrize("name, value, right", WRONG)
def test_what_is_wrong_with_a_variable_names_it(name, value, right, monkeypatch, capsys):
    variable = "USERSTATE_" + name.upper()
    monkeypatch.setenv(variable, value)
    line = f"{variable} '{value}': must be {right}"
    with pytest.raises(userstate.EventError) as caught:
        userstate.send_user_state_event("running", 1000, "x")
    assert str(caught.value) == line
    assert userstate.main(EVENT_WORDS) == 2
    assert capsys.readouterr() == ("", f"userstate: {line}\n")


def test_the_greatest_number_of_seconds_is_below_the_one_that_is_named(capsys):
    assert userstate.main(["-n", "--deadline=99999.9", "--timeout=99999", *EVENT_WORDS]) == 0
    with pytest.raises(userstate.EventError, match="^deadline 100000: must be seconds, above"):
        userstate.user_state_url(url=DEAD, deadline=100000)
