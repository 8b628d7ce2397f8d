"""step, around a block or a function: its reports, its ends, its use again."""
import os
import re
import subprocess
import threading

import pytest

import userstate
from support.files import TOP
from support.interpreters import NO_THREAD, PYTHONS, WITHOUT_IDNA
from support.peers import ACCEPTED, WELL, Peer, answer, reported
from support.processes import fresh, run_code
from support.waiting import wait_for


def states(receiver):
    return [(state, re.sub(r"\d+ s$", "0 s", body)) for _, state, body in receiver.shown()]


def test_a_block_that_ends_well(receiver):
    with userstate.step(1010, "m", metadata_url=receiver.metadata_url):
        pass
    assert states(receiver) == WELL


@pytest.mark.parametrize("error", [ValueError("s3cret"), KeyboardInterrupt(), SystemExit(3)],
                         ids=repr)
def test_a_block_that_fails_is_reported_and_its_exception_untouched(error, receiver):
    with pytest.raises(type(error)) as caught:
        with userstate.step(1010, "m", metadata_url=receiver.metadata_url):
            raise error
    assert caught.value is error and error.__context__ is None
    assert [entry.name for entry in caught.traceback] == [
        "test_a_block_that_fails_is_reported_and_its_exception_untouched"]
    assert states(receiver)[1] == ("failed", f"m: {type(error).__name__} after 0 s")


def test_steps_nest_and_work_in_any_thread(receiver):
    def work():
        with userstate.step(1010, "outer", metadata_url=receiver.metadata_url):
            with userstate.step(1011, "inner", metadata_url=receiver.metadata_url):
                pass
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert [message.split(":")[0] for _, message in states(receiver)].count("inner") == 2
    assert states(receiver)[-1] == ("succeeded", "outer: done after 0 s")


@pytest.mark.parametrize("script", [answer(403), answer(500)], ids=["403", "500"])
def test_a_report_that_fails_is_a_warning_and_nothing_else(script, caplog):
    with Peer(script) as peer:
        with userstate.step(1010, "m", url=peer.url, deadline=0.4):
            pass
    assert {(r.name, r.levelname) for r in caplog.records} == {("userstate", "WARNING")}
    assert "HTTP" in caplog.text


@pytest.mark.parametrize("words, options", [
    ((999, "m"), {}), ((1000, None), {}), ((1000, "m"), {"every": "x"}),
    ((1000, "m"), {"every": 0}), ((1000, "m"), {"timeout": -1}),
    ((1000, "m"), {"url": "ftp://h"})])
def test_an_invalid_step_raises_before_the_block(words, options):
    with pytest.raises(userstate.EventError):
        with userstate.step(*words, **options):
            raise AssertionError("the block ran")


def test_a_step_without_a_thread_still_reports_its_end(receiver, edge_python):
    """The report of its start is left out, with a line; it would hold the block up."""
    code = NO_THREAD + f"""
with userstate.step(1010, "m", metadata_url="{receiver.metadata_url}", say=print):
    print("the block")
"""
    ended = subprocess.run([edge_python, "-B", "-c", code], cwd=TOP, timeout=60,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (0, b"")
    line, block = ended.stdout.decode().splitlines()
    assert "thread" in line and "left out" in line and block == "the block"
    assert states(receiver) == WELL[1:]


@pytest.mark.parametrize("seconds, text", [
    (0.9, "0 s"), (42, "42 s"), (120, "120 s"), (200, "3 min 20 s"), (3599, "59 min 59 s"),
    (3600, "1 h 0 min"), (3900, "1 h 5 min"), (100000, "27 h 46 min")])
def test_durations_are_readable(seconds, text, said):
    with Peer(ACCEPTED) as peer:
        with userstate.step(1000, "m", url=peer.url, **said.options):
            wait_for(lambda: peer.events)
            said.time.now += seconds
        assert peer.events[1]["message"] == f"m: done after {text}"


@pytest.mark.parametrize("code, status, end", [
    ("sys.exit()", 0, "done"), ("sys.exit(0)", 0, "done"), ("sys.exit(None)", 0, "done"),
    ("sys.exit(False)", 0, "done"), ("raise SystemExit", 0, "done"),
    ("sys.exit(3)", 3, "SystemExit"), ("sys.exit('why')", 1, "SystemExit"),
    ("sys.exit(256)", 0, "SystemExit"), ("pass", 0, "done"), ("1 / 0", 1, "ZeroDivisionError"),
    ("raise KeyboardInterrupt", -2, "KeyboardInterrupt")])
def test_an_exit_with_status_0_is_a_success(code, status, end, edge_python):
    with Peer(ACCEPTED) as peer:
        process = subprocess.Popen(
            [edge_python, "-B", "-c", "import sys, userstate\n"
             f"with userstate.step(1010, 'm', url=sys.argv[1]): {code}", peer.url], cwd=TOP,
            stderr=subprocess.DEVNULL, preexec_fn=fresh)
        process.wait(20)
        if (status, edge_python) != (-2, PYTHONS.get("3.6")):  # ends with status 1
            assert process.returncode == status
        assert reported(peer)[-1] == ("succeeded" if end == "done" else "failed",
                                  f"m: {end} after 0 s")


def test_a_step_may_be_used_again(caplog):
    with Peer(ACCEPTED) as peer:
        step = userstate.step(1010, "m", url=peer.url)
        for _ in range(3):
            with step as entered:
                assert entered is step
                wait_for(lambda: len(peer.events) % 2)
        with pytest.raises(KeyError):
            with step:
                raise KeyError
        with step:
            pass
        assert reported(peer) == WELL * 3 + [WELL[0], ("failed", "m: KeyError after 0 s")] + WELL
    assert caplog.records == []


def test_a_step_tells_the_time_of_each_use(said):
    with Peer(ACCEPTED) as peer:
        step = userstate.step(1010, "m", url=peer.url, **said.options)
        for seconds in (42, 7):
            before = len(peer.events)
            with step:
                wait_for(lambda: len(peer.events) > before)
                said.time.now += seconds
        assert [e["message"] for e in peer.events][1::2] == ["m: done after 42 s",
                                                             "m: done after 7 s"]


def test_a_step_within_itself_is_refused_and_the_outer_use_reported():
    with Peer(ACCEPTED) as peer:
        step = userstate.step(1010, "m", url=peer.url)
        with step:
            with pytest.raises(RuntimeError):
                with step:
                    raise AssertionError("the block ran")
        assert reported(peer) == WELL
        with step:
            pass
        assert reported(peer) == WELL * 2


def test_a_step_that_another_thread_uses_is_refused():
    with Peer(ACCEPTED) as peer:
        step, inside, over = userstate.step(1010, "m", url=peer.url), *[
            threading.Event() for _ in range(2)]

        def use():
            with step:
                inside.set()
                over.wait(20)
        thread = threading.Thread(target=use)
        thread.start()
        assert inside.wait(20)
        with pytest.raises(RuntimeError, match="^this step is in use: make another one$"):
            with step:
                raise AssertionError("the block ran")
        over.set()
        thread.join(20)
        assert reported(peer) == WELL


def test_a_step_decorates_functions_and_each_call_reports():
    with Peer(ACCEPTED) as peer:
        @userstate.step(1010, "m", url=peer.url)
        def factorial(n, *, more=0):
            """Return n!"""
            return n * factorial(n - 1) if n else 1 + more
        assert (factorial.__name__, factorial.__doc__) == ("factorial", "Return n!")
        assert peer.events == []  # to decorate is not to call
        assert factorial(0, more=4) == 5 and reported(peer) == WELL
        assert factorial(3) == 6 and len(peer.events) == 10  # within itself
        threads = [threading.Thread(target=factorial, args=(0,)) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join(20) for thread in threads]
        assert sorted(reported(peer)) == sorted(WELL * 9)
        with pytest.raises(TypeError):
            factorial("x")
        assert reported(peer)[-1] == ("failed", "m: TypeError after 0 s")


def test_a_step_in_a_python_without_the_idna_codec_raises_nothing(edge_python):
    code = WITHOUT_IDNA + """
import userstate
with userstate.step(1010, "m", url=sys.argv[1]):
    pass
"""
    with Peer(ACCEPTED) as peer:
        url = peer.url.replace("127.0.0.1", "localhost")
        assert run_code(code, url, python=edge_python) == (0, "", "")
        assert reported(peer) == WELL


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_step_whose_block_forks_does_not_wait_for_the_child(edge_python):
    code = """
import os, sys, time, userstate, warnings
warnings.simplefilter("ignore")  # 3.12 warns of threads
begun = time.monotonic()
with userstate.step(1061, "m", url=sys.argv[1], every=60):
    child = os.fork()
    if not child:
        time.sleep(30)
        os._exit(0)
assert time.monotonic() - begun < 5
os.kill(child, 9)
"""
    with Peer(ACCEPTED) as peer:
        assert run_code(code, peer.url, python=edge_python) == (0, "", "")
        assert reported(peer) == WELL
