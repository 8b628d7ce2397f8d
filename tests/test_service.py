"""The local service, over HTTP, as a person or a script meets it."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error

import pytest
from conftest import HERE, Platform, get

from service import read_event


def ask(platform, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection(*platform.server_address[:2], timeout=10)
    connection.request(method, path, body, dict(headers))
    reply = connection.getresponse()
    got = reply.status, reply.read()
    connection.close()
    return got


ACCEPTED = {
    "an event": (b'{"state":"running","code":1000,"message":"x"}', "running", 1000, "x"),
    "an empty object": (b"{}", "", 0, ""),
    "null": (b"null", "", 0, ""),
    "null fields": (b'{"state":null,"code":null,"message":null}', "", 0, ""),
    "any code": (b'{"code":-7}', "", -7, ""),
    "the largest code": (b'{"code":9223372036854775807}', "", 2**63 - 1, ""),
    "any state": (b'{"state":"dancing"}', "dancing", 0, ""),
    "names in capitals": (b'{"STATE":"a","Code":1,"MesSage":"b"}', "a", 1, "b"),
    "the last of two": (b'{"code":1,"code":2}', "", 2, ""),
    "other names": (b'{"other":{"code":"x"},"code":3}', "", 3, ""),
    "white space": (b' \t\r\n{"code":1}\n', "", 1, ""),
    "lone surrogate": (b'{"message":"a\\udcffb"}', "", 0, "a\ufffdb"),
    "a pair of surrogates": (b'{"message":"\\ud83d\\ude00"}', "", 0, "\U0001f600"),
    "not UTF-8": (b'{"message":"a\xffb\xe2\x82"}', "", 0, "a\ufffdb\ufffd\ufffd"),
    "a long s": ('{"\u017ftate":"x"}'.encode(), "x", 0, ""),
    "a huge number elsewhere": (b'{"other":' + b"9" * 1000000 + b"}", "", 0, ""),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_takes_for_an_event(platform, name):
    body, state, code, message = ACCEPTED[name]
    assert ask(platform, "POST", "/events", body) == (200, b"")
    assert platform.shown() == [(f"user.{code}", state, message)]


REFUSED = {
    "nothing": b"", "no JSON": b"running", "an array": b"[]", "a string": b'"x"',
    "a number": b"1", "quoted code": b'{"code":"1000"}', "fraction": b'{"code":1000.0}',
    "exponent": b'{"code":1e3}', "boolean code": b'{"code":true}',
    "65 bits": b'{"code":9223372036854775808}', "state a number": b'{"state":1}',
    "a huge code": b'{"code":' + b"9" * 1000000 + b"}",
    "message an object": b'{"message":{}}', "NaN": b'{"code":NaN}',
    "byte-order mark": b'\xef\xbb\xbf{"code":1}', "trailing bytes": b'{"code":1} x',
    "two documents": b'{"code":1}{"code":2}', "cut": b'{"code":1000,"state":"run',
    "control character": b'{"message":"\n"}', "too deep": b'{"a":' * 100000,
    "wrong, then right": b'{"code":"1","code":1}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_an_empty_400(platform, name):
    assert ask(platform, "POST", "/events", REFUSED[name]) == (400, b"")
    assert platform.shown() == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_takes_events_by_any_method_and_content_type(platform, method):
    got = ask(platform, method, "/events", b'{"code":1}', {"Content-Type": "text/x"})
    assert got == (200, b"") and platform.shown() == [("user.1", "", "")]


@pytest.mark.parametrize("method, path, status", [
    ("POST", "/events/", 404), ("GET", "/nothing", 404), ("POST", "/", 404),
    ("POST", "/metadata", 405), ("GET", "/devices/none/events", 404),
    ("GET", "/metadata", 200), ("GET", "/metadata?x=1", 200), ("GET", "/", 200)])
def test_answers(platform, method, path, status):
    assert ask(platform, method, path)[0] == status


def test_the_document_has_the_real_shape_and_points_back(platform):
    body = get(platform.metadata_url)
    document = json.loads(body.decode())
    assert 3000 < len(body) < 5600
    assert document["user_state_url"] == platform.url + "/events"
    assert document["phone_home_url"] == platform.url + "/phone-home"
    assert document["network"]["addresses"][0]["address"] == "127.0.0.1"


def test_every_source_address_is_a_device_of_its_own(platform):
    for address in ("127.0.0.1", "127.0.0.2"):
        connection = http.client.HTTPConnection(*platform.server_address,
                                                source_address=(address, 0))
        try:
            connection.request("POST", "/events", json.dumps({"message": address}))
        except OSError:
            pytest.skip("this system has one loopback address")
        assert connection.getresponse().status == 200
        connection.close()
    assert platform.shown("127.0.0.1") == [("user.0", "", "127.0.0.1")]
    assert platform.shown("127.0.0.2") == [("user.0", "", "127.0.0.2")]
    page = get(platform.url).decode()
    assert "127.0.0.1" in page and "127.0.0.2" in page


def test_drops_the_events_of_unknown_addresses_and_says_200():
    with Platform(only=["127.0.0.9"]) as platform:
        assert ask(platform, "POST", "/events", b"{}") == (200, b"")
        assert ask(platform, "POST", "/events", b"[]") == (400, b"")
        status, body = ask(platform, "GET", "/metadata")
        assert (status, json.loads(body.decode())) == (
            404, {"message": "resource not found"})
        assert "No event yet" in get(platform.url).decode()


def test_the_timeline_as_json_is_in_the_shape_of_the_api(platform):
    for message in ("first", "second"):
        platform.put("127.0.0.1", {"state": "running", "code": 1007, "message": message})
    url = f"{platform.url}/devices/{platform.device('127.0.0.1')}/events"
    events = json.loads(get(url).decode())["events"]
    assert [event["body"] for event in events] == ["second", "first"]
    assert set(events[0]) == {"id", "type", "state", "body", "created_at", "ip"}
    assert (events[0]["type"], events[0]["ip"]) == ("user.1007", "127.0.0.1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", events[0]["created_at"])
    assert events[0]["id"] != events[1]["id"]


def test_the_page_shows_and_escapes_everything_and_refreshes_itself(platform):
    platform.put("127.0.0.1", {"state": "<i>", "code": 1007, "message": "<script>\"&'"})
    platform.put("127.0.0.1", {"state": "failed", "code": 1008, "message": "late"})
    page = get(platform.url + "/").decode()
    assert "<script" not in page and "<i>" not in page
    assert "&lt;script&gt;&quot;&amp;&#x27;" in page and "&lt;i&gt;" in page
    assert 'http-equiv="refresh"' in page and 'class="failed">failed' in page
    assert page.index("user.1008") < page.index("user.1007")


def test_events_are_in_the_data_file_before_the_200_and_after_a_restart(tmp_path):
    data = tmp_path / "events"
    with Platform(data=str(data)) as platform:
        assert ask(platform, "POST", "/events", b'{"message":"kept"}')[0] == 200
        assert json.loads(data.read_text())["body"] == "kept"
    with open(data, "a") as file:
        file.write("[" * 100000 + '\n{"half": "a li')
    with Platform(data=str(data)) as platform:
        assert ask(platform, "POST", "/events", b'{"message":"more"}')[0] == 200
        assert [body for _, _, body in platform.shown()] == ["kept", "more"]
    with Platform(data=str(data)) as platform:
        assert [body for _, _, body in platform.shown()] == ["kept", "more"]


def test_a_full_data_file_is_a_500_and_leaves_no_half_event(tmp_path):
    code = ("import resource, runpy, signal, sys; sys.path.insert(0, sys.argv.pop(1));"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400));"
            "import service; sys.exit(service.main(sys.argv[1:]))")
    data = tmp_path / "events"
    with subprocess.Popen([sys.executable, "-B", "-c", code, HERE, "--port", "0", "--data",
                           str(data)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as own:
        address = re.search(rb"//(.*?):(\d+)/", own.stdout.readline())
        statuses = []
        for _ in range(4):
            connection = http.client.HTTPConnection("127.0.0.1", int(address.group(2)))
            connection.request("POST", "/events", b"{}")
            statuses.append(connection.getresponse().status)
            connection.close()
        own.send_signal(signal.SIGINT)
        assert own.wait(20) == 0 and own.stderr.read() == b""
    kept = [json.loads(line) for line in data.read_text().splitlines()]
    assert statuses == [200] * len(kept) + [500] * (4 - len(kept)) and 0 < len(kept) < 4


HEADS = {
    "over 4 MiB": (f"Content-Length: {4 * 2**20 + 1}", 413),
    "endless length": ("Content-Length: " + "9" * 5000, 413),
    "negative": ("Content-Length: -1", 400),
    "a word": ("Content-Length: many", 400),
    "signed": ("Content-Length: +2", 400),
    "chunked": ("Transfer-Encoding: chunked", 411),
}


@pytest.mark.parametrize("name", HEADS)
def test_goes_on_serving_after_a_bad_length(platform, name):
    header, status = HEADS[name]
    with socket.create_connection(platform.server_address) as bad:
        bad.sendall(f"POST /events HTTP/1.1\r\n{header}\r\n\r\n".encode())
        assert bad.recv(100).startswith(f"HTTP/1.1 {status} ".encode())
    assert ask(platform, "POST", "/events", b"{}") == (200, b"")


def test_a_body_that_nobody_asked_for_is_not_the_next_request(platform):
    connection = http.client.HTTPConnection(*platform.server_address)
    for _ in range(2):
        connection.request("POST", "/metadata", b"GET /nothing HTTP/1.0\r\n\r\n")
        reply = connection.getresponse()
        assert (reply.status, bool(reply.read())) == (405, True)
    connection.close()


def test_serves_others_while_a_client_hangs(platform):
    with socket.create_connection(platform.server_address) as idle, \
            socket.create_connection(platform.server_address) as half:
        half.sendall(b"POST /events HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
        idle.sendall(b"GET")
        assert ask(platform, "POST", "/events", b"{}") == (200, b"")


def test_read_event_never_raises_but_for_value_errors():
    import random
    dice = random.Random(1)
    for _ in range(3000):
        body = bytes(dice.choice(b'{}[]":,\\ucode1.-e+statmg \xff\xef\n') for _ in
                     range(dice.randrange(30)))
        try:
            event = read_event(body)
        except ValueError:
            continue
        assert set(event) == {"state", "code", "message"}


def test_starts_says_what_to_export_and_ends_in_silence_on_ctrl_c():
    with subprocess.Popen([sys.executable, "-B", os.path.join(HERE, "service.py"), "--port",
                           "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as service:
        first, second = service.stdout.readline(), service.stdout.readline()
        url = re.fullmatch(rb"export USERSTATE_METADATA_URL=(http://\S+/metadata)\n", second)
        assert first.startswith(b"#") and b"user_state_url" in get(url.group(1).decode())
        service.send_signal(signal.SIGINT)
        assert service.communicate(timeout=20) == (b"", b"")
        assert service.returncode == 0


@pytest.mark.parametrize("words", [["--port", "70000"], ["--host", "192.0.2.1"]])
def test_says_in_a_line_why_it_cannot_start(words):
    ended = subprocess.run([sys.executable, "-B", os.path.join(HERE, "service.py"), *words],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert ended.returncode == 1 and ended.stdout == b""
    assert re.fullmatch(rb"service: cannot start on .*\n", ended.stderr)


def test_an_unknown_page_is_a_404_for_urllib_too(platform):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(platform.url + "/phone-home")
