"""Machines that are to report, as files and options name them, and have told nothing."""
import pytest

from receiver.machines import Machines
from support.receivers import Receiver, ask, event, names_file, read_json, read_page

NAMES = {"10.0.0.1": "db", "10.0.0.2": "web-1", "fe80::1": "web-2", "127.0.0.1": "localhost",
         "::1": "ip6-localhost", "ff02::1": "ip6-allnodes", "224.0.0.1": "all"}


def never(receiver):
    told = read_json(receiver, "/devices?state=never&per_page=100")
    machines = [device["device"] for device in told["devices"]]
    assert told["meta"]["total"] == told["counts"]["never"] == len(machines)
    return machines


def test_those_of_a_names_file_that_have_never_reported_are_counted_and_listed():
    with Receiver(names=NAMES) as receiver:
        assert never(receiver) == ["10.0.0.1", "10.0.0.2", "fe80::1"]
        receiver.tell("10.0.0.2", event("running"))
        receiver.tell("10.0.0.77", event("running"))
        assert never(receiver) == ["10.0.0.1", "fe80::1"]
        page = read_page(receiver)
        assert "0 of 4 done" in page
        assert "never reported" in page
        assert 'userstate_machines{state="never"} 2' in read_page(receiver, "/metrics")
        assert ask(receiver, "DELETE", "/devices/web-1")[0] == 204
        assert never(receiver) == ["10.0.0.1", "10.0.0.2", "fe80::1"]


def test_those_of_only_are_the_expected_ones_if_there_are_any():
    with Receiver(names=NAMES, only=["10.0.0.2", "10.0.0.3", "Serial-7"]) as receiver:
        assert never(receiver) == ["10.0.0.2", "10.0.0.3", "serial-7"]
        receiver.put("serial-7", "10.0.0.9", event("succeeded"))
        assert never(receiver) == ["10.0.0.2", "10.0.0.3"]
        assert "1 of 3 done" in read_page(receiver)


def test_one_that_has_never_reported_is_told_of_as_the_others(receiver):
    with Receiver(names={"10.0.0.1": "db"}) as receiver:
        receiver.tell("10.0.0.2", event("running"))
        running, silent = read_json(receiver, "/devices")["devices"]
        assert set(silent) == set(running)
        assert (silent["state"], silent["hostname"], silent["events"]) == ("never", "db", 0)


def test_they_are_in_the_order_of_the_others():
    machines = ["10.0.0.10", "10.0.0.9", "web-2", "2001:db8::1", "web-10"]
    in_order = ["10.0.0.9", "10.0.0.10", "2001:db8::1", "web-10", "web-2"]
    with Receiver(only=machines) as receiver:
        for state in ("never", "succeeded"):
            listed = read_json(receiver, f"/devices?state={state}")["devices"]
            assert [device["device"] for device in listed] == in_order[:len(listed)]
            for machine in machines:
                receiver.tell(machine, event("succeeded"))
        assert len(listed) == 5


def test_without_names_nobody_is_missed(receiver):
    assert never(receiver) == []
    assert read_json(receiver, "/devices")["counts"]["never"] == 0


@pytest.mark.parametrize("per_page", [1, 2, 3, 7, 50])
def test_pages_go_on_from_those_that_have_reported_to_the_others(per_page):
    names = {f"10.0.0.{number}": f"m{number}" for number in range(20)}
    with Receiver(names=names) as receiver:
        for number in (3, 5, 8):
            receiver.tell(f"10.0.0.{number}", event("running"))
        found, link = [], f"/devices?per_page={per_page}"
        while link:
            told = read_json(receiver, link)
            assert told["meta"]["total"] == 20
            assert len(told["devices"]) == per_page or told["meta"]["next"] is None
            found += [device["device"] for device in told["devices"]]
            link = (told["meta"]["next"] or {}).get("href")
    assert found[:3] == ["10.0.0.3", "10.0.0.5", "10.0.0.8"]
    assert set(found) == set(names)
    assert len(found) == 20


def test_a_search_finds_them_by_name_and_address():
    with Receiver(names={"10.0.0.1": "db", "10.0.0.2": "Web-1"}) as receiver:
        for text, machines in (("web", ["10.0.0.2"]), ("0.0.1", ["10.0.0.1"]), ("x", [])):
            told = read_json(receiver, f"/devices?state=never&q={text}")
            assert [device["device"] for device in told["devices"]] == machines
            assert told["meta"]["total"] == len(machines)


def test_a_file_that_is_read_again_is_counted_again():
    with names_file({"10.0.0.1": "db"}) as path:
        with Receiver() as receiver:
            receiver.machines = Machines(names=path)
            assert never(receiver) == ["10.0.0.1"]
            with open(path, "a") as file:
                file.write("10.0.0.2 web\n")
            receiver.machines.read()
            assert never(receiver) == ["10.0.0.1", "10.0.0.2"]
