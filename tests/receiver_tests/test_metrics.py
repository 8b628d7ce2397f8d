"""What Prometheus scrapes."""
import re

import pytest

from support.receivers import ask, event, post
from support.tools import check


def scraped(receiver):
    """Return {name and labels: value} of what is scraped, and the text of it."""
    status, body = ask(receiver, "GET", "/metrics")
    assert status == 200
    text = body.decode()
    return dict(re.findall(r"(?m)^([^#\s]+) (\S+)$", text)), text


@pytest.fixture
def busy(receiver):
    """A receiver of three machines; in one a step has failed, which took 30 s."""
    for state, code in (("running", 1000), ("running", 1010), ("failed", 1010)):
        receiver.tell("10.0.0.1", event(state, code, "m"))
    receiver.tell("10.0.0.2", event("running", 1000))
    for state in ("running", "succeeded"):
        receiver.tell("10.0.0.3", event(state, 77777))
    receiver.tell("10.0.0.3", event("dancing", 1000))
    return receiver


def test_promtool_takes_it(busy):
    _, text = scraped(busy)
    check("promtool", "check", "metrics", input=text.encode())


def test_machines_and_events_are_counted_by_state(busy):
    values, _ = scraped(busy)
    assert {kind: values[f'userstate_machines{{state="{kind}"}}'] for kind in
            ("failed", "quiet", "running", "succeeded", "other", "never")} == {
        "failed": "1", "quiet": "0", "running": "1", "succeeded": "1", "other": "0",
        "never": "0"}
    assert {state: values[f'userstate_events_total{{state="{state}"}}'] for state in
            ("failed", "running", "succeeded", "other")} == {
        "failed": "1", "running": "4", "succeeded": "1", "other": "1"}


def test_a_quiet_machine_is_not_counted_as_running(busy):
    busy.execute("UPDATE devices SET last_at = '2020-01-01T00:00:00.000000Z'")
    values, _ = scraped(busy)
    assert values['userstate_machines{state="quiet"}'] == "1"
    assert values['userstate_machines{state="running"}'] == "0"


def test_the_seconds_of_steps_are_a_histogram_by_code(receiver, monkeypatch):
    receiver.tell("10.0.0.1", event("running", 1010))
    receiver.execute("UPDATE steps SET began_at = "
                     "strftime('%Y-%m-%dT%H:%M:%S.000000Z', 'now', '-30 seconds')")
    receiver.tell("10.0.0.1", event("succeeded", 1010))
    values, _ = scraped(receiver)
    bounds = {bound: values[f'userstate_step_seconds_bucket{{code="1010",le="{bound}"}}']
              for bound in ("15", "60", "10800", "+Inf")}
    assert bounds == {"15": "0", "60": "1", "10800": "1", "+Inf": "1"}
    assert values['userstate_step_seconds_count{code="1010"}'] == "1"
    assert 29 < float(values['userstate_step_seconds_sum{code="1010"}']) < 45


def test_codes_that_anybody_can_make_up_are_one(busy):
    values, _ = scraped(busy)
    assert values['userstate_step_seconds_count{code="other"}'] == "1"
    assert not any("77777" in name for name in values)


def test_requests_are_counted_by_status_and_the_database_is_measured(receiver):
    post(receiver, b'{"state": "running", "code": 1000}')
    post(receiver, b"no event")
    values, _ = scraped(receiver)
    assert values['userstate_http_requests_total{status="200"}'] == "1"
    assert values['userstate_http_requests_total{status="400"}'] == "1"
    assert int(values["userstate_database_bytes"]) > 10000
    values, _ = scraped(receiver)
    assert values['userstate_http_requests_total{status="200"}'] == "2"


def test_health_is_that_an_event_could_be_committed(receiver, tmp_path):
    assert ask(receiver, "GET", "/healthz") == (200, b'{\n  "status": "ok"\n}')
    receiver.execute("PRAGMA query_only = 1")
    status, body = ask(receiver, "GET", "/healthz")
    assert status == 503
    assert b"attempt to write a readonly database" in body
    receiver.execute("PRAGMA query_only = 0")
    assert ask(receiver, "GET", "/healthz")[0] == 200
