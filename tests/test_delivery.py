"""Delivery: what is tried again and what is not, and that every call ends on time."""
import email.utils
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from conftest import ACCEPTED, SCRIPT, SOURCE, TOP, Peer, Time, answer, document, run

import userstate

EVENT = {"state": "running", "code": 1000, "message": "x"}


def reset_at_once(connection, peer):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_after_request(connection, peer):
    peer.read(connection)
    reset_at_once(connection, peer)


def close_after_request(connection, peer):
    peer.read(connection)


def part(content, rest=None):
    """Return a script that sends content, then `rest` for ever, every 0.05 s, or nothing."""
    def script(connection, peer):
        peer.read(connection)
        connection.sendall(content)
        try:
            while rest and not peer.over.wait(0.05):
                connection.sendall(rest)
        except ConnectionError:
            pass
        peer.wait_closed(connection)
    return script


def flood(content, rest):
    """Return a script that sends content, then `rest` for ever, as fast as it is read."""
    def script(connection, peer):
        peer.read(connection)
        connection.sendall(content)
        while not peer.over.is_set():
            connection.sendall(rest)
    return script


def hang_before_request(connection, peer):
    peer.wait_closed(connection)


# Passing faults of both ends: tried again until the deadline.
FAULTS = {
    **{str(status): answer(status, b'{"errors":["later"]}')
       for status in (408, 425, 429, 500, 502, 503, 504, 507, 599, 999)},
    "500 without a body": answer(500),
    "early hints only": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "reset before the request": reset_at_once,
    "reset after the request": reset_after_request,
    "closed without an answer": close_after_request,
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "binary": b"\x15\x03\x01\x00\x02\x02\x50",
    "status no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "status line cut": b"HTTP/1.1 2",
    "header line of 200 kB": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200000 + b"\r\n\r\n",
    "10000 headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10000 + b"\r\n",
}
# Those that only time ends; `timeout` is small in their tests.
HANGS = {
    "hang before the request": hang_before_request,
    "hang after the request": part(b""),
    "hang in the status line": part(b"HTTP/1.1 20"),
    "drip in the headers": part(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "endless 100 Continue": part(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "503 with a body that hangs": part(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n"),
}
# Those of an answer that is a success for a POST, whose body is not read.
BODIES = {
    "body cut": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "chunk cut": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{",
}
BODY_HANGS = {
    "body hangs": part(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
    "body drips": part(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" "),
    "endless body drips": part(b"HTTP/1.1 200 OK\r\n\r\n", b" "),
}
METADATA_FAULTS = dict(FAULTS, **BODIES)


def post(peer, said, **options):
    userstate.post_event(EVENT, peer.url, **dict(said.options, **options))


def ask(peer, said, **options):
    return userstate.fetch_metadata(
        metadata_url=peer.url, **dict(said.options, **options))["id"]


@pytest.mark.parametrize("name", FAULTS)
def test_tries_an_event_again_after(name, said):
    with Peer(FAULTS[name], FAULTS[name], ACCEPTED) as peer:
        post(peer, said)
        assert peer.events[-1] == EVENT and len(set(peer.bodies)) == 1
    assert len(said.time.pauses) == 2 and len(said.lines) == 1


@pytest.mark.parametrize("name", METADATA_FAULTS)
def test_tries_the_metadata_again_after(name, said):
    with Peer(METADATA_FAULTS[name], METADATA_FAULTS[name], document()) as peer:
        assert ask(peer, said) == "x"
    assert len(said.time.pauses) == 2 and len(said.lines) == 1


@pytest.mark.parametrize("name", HANGS)
def test_a_try_that_hangs_is_closed_and_tried_again(name, said):
    with Peer(HANGS[name], ACCEPTED) as peer:
        post(peer, said, timeout=0.3)
        assert peer.events[-1] == EVENT
        assert peer.closed.acquire(timeout=10)
    assert len(said.lines) == 1


@pytest.mark.parametrize("name", {**HANGS, **BODY_HANGS})
def test_metadata_that_hangs_is_closed_and_tried_again(name, said):
    script = {**HANGS, **BODY_HANGS}[name]
    with Peer(script, document()) as peer:
        assert ask(peer, said, timeout=0.3) == "x"
    assert len(said.lines) == 1


@pytest.mark.parametrize("name", {**BODIES, **BODY_HANGS})
@pytest.mark.parametrize("status", [b"200 OK", b"201 Created", b"202 Yes", b"299 Odd"])
def test_2xx_to_an_event_is_success_whatever_its_body_does(name, status, said):
    script = {**BODIES, **BODY_HANGS}[name]
    if not callable(script):
        script = script.replace(b"200 OK", status)
    with Peer(script) as peer:
        post(peer, said)
        assert peer.events == [EVENT]
    assert said.lines == []


def test_204_and_connection_close_and_http_1_0_are_success(said):
    for script in (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n",
                   b"HTTP/1.1 100 Continue\r\n\r\n" + ACCEPTED):
        with Peer(script) as peer:
            post(peer, said)
            assert peer.events == [EVENT]


@pytest.mark.parametrize("name", FAULTS)
def test_gives_up_at_the_deadline_after(name, said):
    begun = said.time.now
    with Peer(FAULTS[name]) as peer:
        with pytest.raises(userstate.DeadlineError, match=r"gave up at try \d+ after 1\d\d"):
            post(peer, said)
        assert len(set(peer.bodies)) <= 1
    assert 135 < said.time.now - begun <= 150


def test_pauses_grow_and_vary_and_leave_time_for_a_last_try(said):
    with Peer(answer(500)) as peer:
        with pytest.raises(userstate.DeadlineError):
            post(peer, said)
    assert 148.9 < sum(said.time.pauses) <= 150
    *pauses, last = said.time.pauses
    for pause, most in zip(pauses, userstate.PAUSES + userstate.PAUSES[-1:] * 99):
        assert most / 2 <= pause <= most
    assert len(set(pauses)) == len(pauses) and last <= 14
    assert userstate.PAUSES == (1, 2, 4, 8, 15)


@pytest.mark.parametrize("tries", [1, 2, 3])
@pytest.mark.parametrize("status", [400, 404])
def test_metadata_400_and_404_may_pass(status, tries, said):
    script = answer(status, b'{"message":"resource not found"}')
    with Peer(*[script] * tries, document()) as peer:
        assert ask(peer, said) == "x"
        assert len(peer.requests) == tries + 1
    assert "resource not found" in said.lines[0]


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_event_400_may_pass(tries, said):
    with Peer(*[answer(400)] * tries, ACCEPTED) as peer:
        post(peer, said)
        assert peer.events == [EVENT] * (tries + 1)


def test_the_key_may_appear_later(said):
    with Peer(*[document(user_state_url=None)] * 3, document(user_state_url="http://h/")
              ) as peer:
        assert userstate.user_state_url(metadata_url=peer.url, **said.options) == "http://h/"


def test_other_faults_do_not_use_up_the_three_more_tries(said):
    scripts = [answer(400), answer(500)] * 3 + [answer(500)] * 4 + [ACCEPTED]
    with Peer(*scripts) as peer:
        post(peer, said)
        assert len(peer.events) == 11


@pytest.mark.parametrize("end, status", [("event", 400), ("metadata", 400),
                                         ("metadata", 404)])
def test_three_more_tries_and_then_refused(end, status, said):
    with Peer(answer(status)) as peer:
        with pytest.raises(userstate.RefusedError, match=f"HTTP {status}.*refused at try 4"):
            (post if end == "event" else ask)(peer, said)
        assert len(peer.requests) == 4


AT_ONCE = [300, 301, 302, 303, 304, 305, 307, 308, 401, 402, 403, 405, 406, 407, 409, 410,
           411, 413, 418, 422, 451, 499, 501, 505]


@pytest.mark.parametrize("status", AT_ONCE + [404])
def test_an_event_is_refused_at_once_by(status, said):
    body = b"" if status == 304 else b'{"error":"no\\u001b[31m way"}'
    reason = r" \(no \[31m way\)" if body else ""
    with Peer(answer(status, body)) as peer:
        with pytest.raises(userstate.RefusedError,
                           match=rf"HTTP {status} Reason{reason}; refused at try 1"):
            post(peer, said)
        assert len(peer.requests) == 1
    assert said.lines == []


@pytest.mark.parametrize("status", AT_ONCE)
def test_metadata_is_refused_at_once_by(status, said):
    with Peer(answer(status)) as peer:
        with pytest.raises(userstate.RefusedError, match=f"HTTP {status} "):
            ask(peer, said)
        assert len(peer.requests) == 1


def test_a_refusal_whose_body_hangs_is_still_one(said):
    with Peer(part(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\n")) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 403 No; refused at try 1"):
            post(peer, said, timeout=0.3)


@pytest.mark.parametrize("location, shown", [
    ("http://other.example/events?token=s3cret", "http://other.example/events"),
    ("file:///etc/passwd", "file:///etc/passwd"), ("/else", "/else"),
    ("http://u:s3cret@h/", "(hidden: @)"), ("http://u:s3cret?x@h/", "(hidden: @)"),
    ("http://[", "http://[")])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed_and_its_target_named(status, location, shown, said):
    with Peer(ACCEPTED) as other:
        target = location.replace("other.example", f"127.0.0.1:{other.port}")
        with Peer(answer(status, b"", f"Location: {target}")) as peer:
            with pytest.raises(userstate.RefusedError) as caught:
                post(peer, said)
            assert len(peer.requests) == 1
        assert other.requests == []
    text = str(caught.value).replace(f"127.0.0.1:{other.port}", "other.example")
    assert f"redirect to {shown}" in text and "s3cret" not in text


def test_a_redirect_to_itself_is_no_loop(said):
    with Peer(answer(307, b"", "Location: /events")) as peer:
        with pytest.raises(userstate.RefusedError):
            ask(peer, said)
        assert len(peer.requests) == 1


@pytest.mark.parametrize("script", [
    answer(500), answer(404), answer(403), reset_at_once, document(user_state_url=None),
    answer(302, b"", "Location: /x")], ids=[
        "500", "404", "403", "reset", "no key", "redirect"])
def test_the_second_metadata_address_takes_over(script, said):
    with Peer(script) as first, Peer(document(user_state_url="http://h/")) as second:
        url = f"{first.url} {second.url}"
        assert userstate.user_state_url(metadata_url=url, **said.options) == "http://h/"
    assert len(said.time.pauses) == 1 and first.url in said.lines[0]


def test_metadata_addresses_are_tried_in_turn(said):
    with Peer(answer(404)) as first, Peer(answer(404)) as second:
        with pytest.raises(userstate.RefusedError):
            userstate.fetch_metadata(metadata_url=f"{first.url} {second.url}", **said.options)
        assert (len(first.requests), len(second.requests)) == (2, 2)


DATE = email.utils.formatdate(time.time() + 3600, usegmt=True)


@pytest.mark.parametrize("value, least, most", [
    ("7", 7, 7), ("30", 30, 30), ("31", 30, 30), ("9999999999", 30, 30),
    ("9" * 4000, 30, 30), pytest.param(DATE, 30, 30, id="in an hour"),
    ("0", 0.5, 1), ("-1", 0.5, 1), ("soon", 0.5, 1),
    ("", 0.5, 1), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.5, 1), ("\xb2", 0.5, 1), ("1.5", 0.5, 1),
    ("Fri, 31 Dec 99999 23:59:59 GMT", 0.5, 1), ("nan", 0.5, 1), ("1, 2", 0.5, 1)])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_makes_a_pause_longer(status, value, least, most, said):
    with Peer(answer(status, b"", f"Retry-After: {value}"), ACCEPTED) as peer:
        post(peer, said)
    assert least <= said.time.pauses[0] <= most


def test_a_past_retry_after_of_an_answer_that_outlasts_the_deadline_is_harmless():
    header = b"Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 9999\r\n\r\n"
    with Peer(part(b"HTTP/1.1 503 No\r\n" + header, b"x")) as peer:
        with pytest.raises(userstate.DeadlineError, match="503 No; gave up at try 1 "):
            userstate.post_event(EVENT, peer.url, deadline=0.3, say=lambda line: None)


def test_an_odd_retry_after_does_not_hide_a_refusal(said):
    with Peer(answer(403, b"", "Retry-After: Jan \xb2 , 1e400 1:2")) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 403"):
            post(peer, said)


@pytest.mark.parametrize("seconds", [20, 25])
def test_gives_up_now_if_retry_after_ends_at_or_behind_the_deadline(seconds, said):
    with Peer(answer(503, b"", f"Retry-After: {seconds}")) as peer:
        with pytest.raises(userstate.DeadlineError, match="gave up at try 1"):
            post(peer, said, deadline=20)
        assert said.time.pauses == []


@pytest.mark.parametrize("deadline, pauses", [(0.8, [0.4]), (6, [1, 2, 2])])
def test_the_last_try_has_half_of_what_is_left_or_a_second(deadline, pauses, said, monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda least, most: most)
    with Peer(answer(503)) as peer:
        with pytest.raises(userstate.DeadlineError):
            post(peer, said, deadline=deadline)
        assert said.time.pauses == pytest.approx(pauses)


def test_retry_after_dates_of_all_kinds_are_harmless(said):
    dice = random.Random(3)
    words = ["Mon,", "99", "Jan", "1970", "00:00:60", "GMT", "+9999", "-1", "a:b", "\xff", ","]
    values = [" ".join(dice.choice(words) for _ in range(dice.randrange(8)))
              for _ in range(200)]
    with Peer(*[answer(503, b"", f"Retry-After: {value}") for value in values],
              ACCEPTED) as peer:
        post(peer, said, deadline=99999)
    assert len(said.time.pauses) == 200 and max(said.time.pauses) <= 30


def test_equal_problems_are_said_once_and_the_last_line_is_the_verdict(said):
    scripts = [answer(500), answer(503), answer(500), answer(503), answer(403)]
    with Peer(*scripts) as peer:
        with pytest.raises(userstate.RefusedError, match=r"403.*refused at try 5 after \d"):
            post(peer, said)
    assert [re.search("HTTP ...", line).group() for line in said.lines] == [
        "HTTP 500", "HTTP 503"]
    assert all(re.search(r"; trying again in \d+\.\d s$", line) for line in said.lines)


@pytest.mark.parametrize("body, shown", [
    ({"errors": ["a", "b"]}, "(a) (b)"), ({"message": "m"}, "(m)"), ({"error": "e"}, "(e)"),
    ({"errors": []}, ""), ({"errors": [{"a": "s3cret"}]}, ""), ({"message": {}}, ""),
    ({"other": "s3cret"}, ""), ({"message": "a\n\x1b\u202eb"}, "(a b)"),
    ({"message": "x" * 50000}, "(" + "x" * 200 + ")"), (["s3cret"], ""), (None, "")])
def test_the_reason_of_an_answer_is_shown_on_one_line(body, shown, said):
    with Peer(answer(403, json.dumps(body).encode())) as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            post(peer, said)
    assert f"HTTP 403 Reason {shown}".strip() + "; refused" in str(caught.value)
    assert "s3cret" not in str(caught.value) and len(str(caught.value)) < 400


def test_nothing_of_a_document_without_a_status_line_is_shown(said):
    with Peer(b'{"id": "s3cret"}\n') as peer:
        with pytest.raises(userstate.DeadlineError, match="broken answer .BadStatusLine") as c:
            ask(peer, said)
    assert "s3cret" not in str(c.value)


def test_a_reason_phrase_from_outside_is_cut_and_made_printable(said):
    with Peer(b"HTTP/1.1 403 \x1b[31m" + b"x" * 5000 + b"\r\n\r\n") as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            post(peer, said)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 250


def test_any_sequence_of_passing_faults_and_then_200_is_one_accepted_event():
    dice = random.Random(2026)
    names = [name for name in FAULTS if "reset before" not in name]
    for _ in range(40):
        faults = [dice.choice(names) for _ in range(dice.randrange(9))]
        with Peer(*[FAULTS[name] for name in faults], ACCEPTED) as peer:
            userstate.post_event(EVENT, peer.url, say=lambda line: None,
                                 sleep=lambda seconds: None)
            assert peer.events == [EVENT] * (len(faults) + 1), faults


# Real time, small deadlines.

def took(function, *args, **options):
    begun = time.monotonic()
    try:
        result = function(*args, **options)
    except userstate.UserStateError as error:
        result = error
    return result, time.monotonic() - begun


@pytest.mark.parametrize("name", {**HANGS, **BODY_HANGS})
def test_the_call_ends_at_its_deadline_whatever_the_peer_does(name):
    with Peer({**HANGS, **BODY_HANGS}[name]) as peer:
        result, seconds = took(userstate.fetch_metadata, metadata_url=peer.url, timeout=5,
                               deadline=0.6, say=lambda line: None)
    assert isinstance(result, userstate.DeadlineError) and 0.3 < seconds < 2


def test_a_service_that_comes_up_late_is_delivered_to():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/events"
        with subprocess.Popen([sys.executable, "-B", SCRIPT, "--url", url, "running", "1000",
                               "x"], stderr=subprocess.PIPE) as process:
            assert b"Connection refused" in process.stderr.readline()
            reserved.listen(5)
            connection, _ = reserved.accept()
            with connection:
                assert connection.recv(65536).startswith(b"POST ")
                connection.sendall(ACCEPTED)
            assert process.wait(20) == 0


HIDDEN_DNS = """
import socket, threading
answered, asked, find = threading.Event(), threading.Event(), socket.getaddrinfo
def getaddrinfo(*args, **options):
    asked.set()
    answered.wait(60)
    return find("127.0.0.1", *args[1:], **options)
socket.getaddrinfo = getaddrinfo
"""


def test_dns_that_never_answers_does_not_hold_up_the_boot(edge_python):
    begun = time.monotonic()
    ended = subprocess.run(
        [edge_python, "-B", "-c", HIDDEN_DNS + SOURCE.decode(), "--deadline", "1", "running",
         "1000", "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/")
    assert ended.returncode == 75 and time.monotonic() - begun < 3
    assert re.search(rb"packet.net/metadata: timed out \(.*\); gave up", ended.stderr)


def test_an_abandoned_try_delivers_nothing_later():
    with Peer(ACCEPTED) as peer:
        code = HIDDEN_DNS + f"""
import _thread, time, userstate
try:
    userstate.post_event({{}}, "http://slow.example:{peer.port}/", timeout=0.2, deadline=0.2)
except userstate.DeadlineError:
    answered.set()
while _thread._count():
    time.sleep(0.01)
"""
        ended = subprocess.run([sys.executable, "-B", "-c", code], cwd=TOP,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert ended.returncode == 0, ended.stderr
        assert peer.requests == []


def test_a_dead_address_of_two_leaves_time_for_the_other(edge_python):
    with socket.socket() as dead, Peer(ACCEPTED) as peer:
        dead.bind(("127.0.0.1", 0))
        dead.listen(0)
        waiting = []
        for _ in range(3):  # its backlog is full: who connects gets no answer
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(dead.getsockname())
        code = f"""
import socket, userstate
def both(*args, **options):
    return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))
            for port in ({dead.getsockname()[1]}, {peer.port})]
socket.getaddrinfo = both
userstate.post_event({{}}, "http://two.example/", timeout=1, deadline=1)
"""
        ended = subprocess.run([edge_python, "-B", "-c", code], cwd=TOP,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert ended.returncode == 0, ended.stderr
        assert len(peer.events) == 1
        for client in waiting:
            client.close()


FLOODS = {
    "negative chunk": flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
                            b" " * 65536),
    "negative chunk of an error": flood(
        b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", b" " * 65536),
    "endless body": flood(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536),
    "endless chunks": flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                            b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "endless error": flood(b"HTTP/1.1 503 No\r\n\r\n", b" " * 65536),
    "endless header line": flood(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536),
    "endless headers": flood(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10000),
    "endless status line": flood(b"HTTP/1.1 200 ", b"x" * 65536),
    "endless 100 Continue": flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_memory_stays_under_64_mib(name, edge_python):
    if not os.path.exists("/proc/self/status"):
        pytest.skip("no /proc here")
    # Not ru_maxrss: that is at least what the process that forked it had.
    code = ("import re, sys, userstate; userstate.main(sys.argv[1:]);"
            "print(re.search('VmHWM: *(.*) kB', open('/proc/self/status').read()"
            ".replace('\\t', '')).group(1))")
    with Peer(FLOODS[name]) as peer:
        ended = subprocess.run(
            [edge_python, "-B", "-c", code, "--metadata-url", peer.url, "--deadline=0.8",
             "--timeout=0.4", "running", "1000", "x"], cwd=TOP, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, timeout=30)
    assert b"Traceback" not in ended.stderr
    assert int(ended.stdout) < 64 * 1024


def test_proxies_netrc_and_home_do_not_matter(platform, tmp_path, edge_python):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    dead = "http://127.0.0.1:9"
    env = dict(platform.env, HOME=str(tmp_path), http_proxy=dead, HTTP_PROXY=dead,
               https_proxy=dead, all_proxy=dead, ALL_PROXY=dead, REQUEST_METHOD="GET")
    assert run("running", "1000", "x", env=env, python=edge_python) == (0, "", "")
    with Peer(ACCEPTED) as peer:
        assert run("--url", peer.url, "running", "1000", "x", env=env).status == 0
        assert b"authorization" not in peer.requests[0].lower()


def test_an_empty_environment_is_enough(platform, edge_python):
    ended = subprocess.run(
        ["env", "-i", edge_python, "-", "--metadata-url", platform.metadata_url, "running",
         "1000", "x"], input=SOURCE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (ended.returncode, ended.stdout) == (0, b"") and len(platform.shown()) == 1


def test_ipv6(said):
    try:
        peer = Peer(ACCEPTED, host="::1")
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with peer:
        post(peer, said)
        assert f"Host: [::1]:{peer.port}".encode() in peer.requests[0]


WAITS = {
    "in the metadata": (["--metadata-url"], part(b"")),
    "in the event": (["--url"], part(b"HTTP/1.1 200")),
    "in a pause": (["--url"], answer(503, b"", "Retry-After: 30")),
}


@pytest.mark.parametrize("number, status", [(signal.SIGINT, -2), (signal.SIGTERM, -15)])
@pytest.mark.parametrize("name", WAITS)
def test_signals_end_it_at_once(name, number, status, edge_python):
    option, script = WAITS[name]
    with Peer(script) as peer, subprocess.Popen(
            [edge_python, "-B", SCRIPT, "-v", *option, peer.url, "running", "1000", "x"],
            stderr=subprocess.PIPE) as process:
        if name == "in a pause":
            while b"trying again" not in process.stderr.readline():
                assert process.poll() is None
        else:
            wait_for(lambda: peer.requests)
        begun = time.monotonic()
        process.send_signal(number)
        assert process.wait(10) == status and time.monotonic() - begun < 2
        rest = process.stderr.read()
        assert rest == (b"userstate: interrupted\n" if status == -2 else b"")


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_ctrl_c_in_dns_ends_it_at_once(edge_python):
    code = HIDDEN_DNS + "print('ready', flush=True)\n" + SOURCE.decode()
    code = code.replace("asked.set()", "print('asked', flush=True)")
    with subprocess.Popen([edge_python, "-B", "-c", code, "running", "1000", "x"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/") as process:
        assert process.stdout.readline() + process.stdout.readline() == b"ready\nasked\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -2 and time.monotonic() - begun < 2


@pytest.mark.parametrize("url, port", [("http://h/", 80), ("https://h/", 443),
                                       ("http://h:81/", 81), ("https://h:80/", 80)])
def test_the_port_is_that_of_the_address_or_of_its_scheme(url, port, said, monkeypatch):
    asked = []

    def getaddrinfo(*words, **options):
        asked.append(words)
        raise OSError("no such name")
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(userstate.DeadlineError):
        userstate.post_event({}, url, **said.options)
    assert set(asked) == {(b"h", port)}


def test_a_stopped_service_is_given_up_at_the_deadline():
    service = [sys.executable, "-B", os.path.join(TOP, "tests", "service.py"), "--port", "0"]
    with subprocess.Popen(service, stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            url = process.stdout.readline().decode().strip().split("=")[1]
            process.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            ended = run("--deadline=1", "running", "1000", "x",
                        env={"USERSTATE_METADATA_URL": url})
            assert ended.status == 75 and time.monotonic() - begun < 4
            assert "timed out; gave up" in ended.err
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


# As with a limit of the processes, and seccomp.
NO_THREAD = """
import resource, sys, threading
try:
    import userstate
except ImportError:
    pass
most = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (256 << 20, most))
threading.stack_size(512 << 20)
try:
    threading.Thread(target=print).start()
except RuntimeError:
    pass
else:
    sys.exit("a thread can be had")
"""


def test_no_thread_to_be_had_is_delivered_at_once(edge_python):
    code = NO_THREAD + "userstate.post_event({}, sys.argv[1], say=print)"
    with Peer(ACCEPTED) as peer:
        ended = subprocess.run([edge_python, "-B", "-c", code, peer.url], cwd=TOP,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
        assert len(peer.requests) == 1 and peer.events == [{}]


def serve_quickly(listener):
    """Answer like the platform, one connection after the other, until the end."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            asked = connection.recv(65536)
            connection.sendall(document(user_state_url="http://service.example/events")
                               if asked.startswith(b"GET ") else ACCEPTED)


def test_ten_thousand_machines_deliver_and_do_not_flood(monkeypatch):
    """The service is down for 60 s; MACHINES=10000 gives the figures of the README."""
    machines = int(os.environ.get("MACHINES", "2000"))
    dice, requests = random.Random(1), {}
    machine, waits = Time(), []
    monkeypatch.setattr(random, "uniform", dice.uniform)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        threading.Thread(target=serve_quickly, args=(listener,), daemon=True).start()
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", listener.getsockname())]

        def getaddrinfo(*args, **options):
            requests[int(machine.now)] = requests.get(int(machine.now), 0) + 1
            if machine.now < 60:
                raise OSError("Connection refused")
            machine.now += 0.01
            return found
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        for number in range(machines):
            machine.now = begun = (number + dice.random()) * 10 / machines
            userstate.send_user_state_event(
                "running", 1000, "x", metadata_url="http://service.example/metadata",
                clock=machine.clock, sleep=machine.sleep, say=str)
            assert machine.now < begun + 150
            waits.append(machine.now - 60)
        listener.shutdown(socket.SHUT_RDWR)
    peak = max(count for second, count in requests.items() if second >= 30)
    assert peak < machines / 5 and max(waits) < 16
    assert sum(requests.values()) > 5 * machines  # it was down, and asked
    print(f"peak {peak} requests in a second, the last delivered {max(waits):.1f} s after, "
          f"{sum(requests.values()) / machines:.1f} requests a machine")
