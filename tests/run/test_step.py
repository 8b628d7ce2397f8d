"""step, around a block or a function: its reports, its ends, its use again."""
import signal
import subprocess
import threading

import pytest

import userstate
from support.interpreters import EDGES, NO_THREAD, WITHOUT_IDNA
from support.peers import ACCEPTED, DEAD, WELL, Peer, answer, reported
from support.processes import run_code
from support.receivers import in_threads
from support.waiting import at_most, wait_for


def test_a_block_that_ends_well(receiver):
    with userstate.step(1010, "m", metadata_url=receiver.metadata_url):
        pass
    assert reported(receiver) == WELL


@pytest.mark.parametrize("error", [ValueError("s3cret"), KeyboardInterrupt(), SystemExit(3)],
                         ids=repr)
def test_a_block_that_fails_is_reported_and_its_exception_untouched(error, receiver):
    with pytest.raises(type(error)) as caught:
        with userstate.step(1010, "m", metadata_url=receiver.metadata_url):
            raise error
    assert caught.value is error
    assert error.__context__ is None
    assert [entry.name for entry in caught.traceback] == [
        "test_a_block_that_fails_is_reported_and_its_exception_untouched"]
    assert reported(receiver)[1] == ("failed", f"m: {type(error).__name__} after 0 s")


def test_steps_nest_and_work_in_any_thread(receiver):
    def work():
        with userstate.step(1010, "outer", metadata_url=receiver.metadata_url):
            with userstate.step(1011, "inner", metadata_url=receiver.metadata_url):
                pass
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert [message.split(":")[0] for _, message in reported(receiver)].count("inner") == 2
    assert reported(receiver)[-1] == ("succeeded", "outer: done after 0 s")


@pytest.mark.parametrize("script", [answer(403), answer(500)], ids=["403", "500"])
def test_a_report_that_fails_is_a_warning_and_nothing_else(script, caplog):
    with Peer(script) as peer:
        with userstate.step(1010, "m", url=peer.url, deadline=0.4):
            pass
    assert {(record.name, record.levelname) for record in caplog.records} == {
        ("userstate", "WARNING")}
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
    code = NO_THREAD + """
with userstate.step(1010, "m", metadata_url=sys.argv[1], say=print):
    print("the block")
"""
    done = run_code(code, receiver.metadata_url, python=edge_python)
    assert done.status == 0
    assert done.err == ""
    line, block = done.out.splitlines()
    assert "thread" in line
    assert "left out" in line
    assert block == "the block"
    assert reported(receiver) == WELL[1:]


@pytest.mark.parametrize("seconds, text", [
    (0.9, "0 s"), (42, "42 s"), (120, "120 s"), (200, "3 min 20 s"), (3599, "59 min 59 s"),
    (3600, "1 h 0 min"), (3900, "1 h 5 min"), (100000, "27 h 46 min")])
def test_durations_are_readable(seconds, text, said):
    with Peer(ACCEPTED) as peer:
        with userstate.step(1000, "m", url=peer.url, **said.options):
            wait_for(lambda: peer.events)
            said.time.now += seconds
        assert peer.events[1]["message"] == f"m: done after {text}"


BLOCK = "import sys, userstate\nwith userstate.step(1010, 'm', url=sys.argv[1]): "


@pytest.mark.parametrize("code, status, state, what", [
    ("pass", 0, "succeeded", "done"),
    ("sys.exit()", 0, "succeeded", "done"),
    ("sys.exit(0)", 0, "succeeded", "done"),
    ("sys.exit(None)", 0, "succeeded", "done"),
    ("sys.exit(False)", 0, "succeeded", "done"),
    ("raise SystemExit", 0, "succeeded", "done"),
    ("sys.exit(3)", 3, "failed", "SystemExit"),
    ("sys.exit('why')", 1, "failed", "SystemExit"),
    ("sys.exit(256)", 0, "failed", "SystemExit"),
    ("1 / 0", 1, "failed", "ZeroDivisionError")])
def test_an_exit_with_status_0_is_a_success(code, status, state, what, edge_python):
    with Peer(ACCEPTED) as peer:
        done = run_code(BLOCK + code, peer.url, python=edge_python, stderr=subprocess.DEVNULL)
        assert done.status == status
        assert reported(peer) == [WELL[0], (state, f"m: {what} after 0 s")]


def test_an_interrupt_is_a_failure_and_python_ends_as_it_does(edge_python):
    code = "raise KeyboardInterrupt"
    as_it_does = run_code(code, python=edge_python, stderr=subprocess.DEVNULL).status
    assert as_it_does in (-signal.SIGINT, 1)  # 1 before 3.8
    with Peer(ACCEPTED) as peer:
        done = run_code(BLOCK + code, peer.url, python=edge_python, stderr=subprocess.DEVNULL)
        assert done.status == as_it_does
        assert reported(peer) == [WELL[0], ("failed", "m: KeyboardInterrupt after 0 s")]


def test_a_step_may_be_used_again(caplog):
    with Peer(ACCEPTED) as peer:
        step = userstate.step(1010, "m", url=peer.url)
        for _ in range(3):
            with step as entered:
                assert entered is step
                wait_for(lambda: len(peer.events) % 2 == 1)  # it is told that it runs
        with pytest.raises(KeyError):
            with step:
                raise KeyError
        with step:
            pass
        assert reported(peer) == [
            *WELL * 3, WELL[0], ("failed", "m: KeyError after 0 s"), *WELL]
    assert caplog.records == []


def test_a_step_tells_the_time_of_each_use(said):
    with Peer(ACCEPTED) as peer:
        step = userstate.step(1010, "m", url=peer.url, **said.options)
        with step:
            wait_for(lambda: len(peer.events) == 1)
            said.time.now += 42
        with step:
            wait_for(lambda: len(peer.events) == 3)
            said.time.now += 7
        assert [event["message"] for event in peer.events] == [
            "m", "m: done after 42 s", "m", "m: done after 7 s"]


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
        step = userstate.step(1010, "m", url=peer.url)
        inside, over = threading.Event(), threading.Event()

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
        assert factorial(0, more=4) == 5
        assert reported(peer) == WELL
        assert factorial(3) == 6  # within itself
        assert len(peer.events) == 10
        assert in_threads(4, factorial) == [1, 1, 2, 6]  # of 0 to 3
        assert sorted(reported(peer)) == sorted(WELL * 15)
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


def test_a_report_that_fails_in_its_thread_leaves_no_trace_at_the_exit(python):
    """Before 3.9 threading takes the thread that imports it first for the main one."""
    code = """
import sys, time, userstate
with userstate.step(1010, "m", url=sys.argv[1], deadline=0.2):
    time.sleep(0.5)
"""
    done = run_code(code, DEAD, python=python)
    assert done.status == 0
    lines = done.err.splitlines()
    assert len(lines) >= 2
    for line in lines:
        assert DEAD in line


UNFINISHED = """
import sys, userstate
def generate():
    with userstate.step(1010, "m", url=sys.argv[1], deadline=1):
        yield
generator = generate()
next(generator)
"""


def test_a_block_that_ends_with_python_leaves_no_trace():
    """Whether the block is left at all then is up to Python; ended() looks for traces.

    All at once, as some wait for GRACE seconds for a thread that Python has ended.
    """
    pythons = list(EDGES.values())
    with Peer(answer(503)) as peer:
        done = in_threads(len(pythons), lambda number: run_code(
            UNFINISHED, peer.url, python=pythons[number]))
    assert [each.status for each in done] == [0] * len(pythons)


def test_a_heartbeat_that_is_due_at_the_end_is_left_out(monkeypatch):
    beat_is_due, block_is_over = threading.Event(), threading.Event()
    renew = userstate._Delivery.renew

    def renew_in_order(delivery, *limits):  # that of the heartbeat behind that of the end
        if threading.current_thread() is threading.main_thread():
            renew(delivery, *limits)
            block_is_over.set()
        else:
            beat_is_due.set()
            block_is_over.wait(20)
            renew(delivery, *limits)
    with Peer(ACCEPTED) as peer:
        with userstate.step(1010, "m", every=0.5, url=peer.url):
            monkeypatch.setattr(userstate._Delivery, "renew", renew_in_order)
            assert beat_is_due.wait(20)
        assert reported(peer) == WELL


def test_many_short_steps_keep_the_order_of_their_reports():
    """The end may come while the first report is on its way, in a pause or in a try."""
    scripts = [ACCEPTED, answer(503, b"", "Retry-After: 1"), answer(503), ACCEPTED, ACCEPTED]
    with Peer(*scripts * 20, ACCEPTED) as peer, at_most(60):
        def report(number):
            with userstate.step(1010, f"{number}", url=peer.url, say=str):
                pass
        in_threads(8, lambda row: [report(row * 5 + column) for column in range(5)])
        came = [(event["message"].partition(":")[0], event["state"]) for event in peer.events]
    for number in range(40):
        states = [state for message, state in came if message == f"{number}"]
        running = states.count("running")
        assert running >= 1
        assert set(states[:running]) == {"running"}
        assert set(states[running:]) == {"succeeded"}
