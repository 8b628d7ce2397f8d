"""What the options on the command line do."""
import json
import ssl
import urllib.request

from receiver.machines import device_id
from support.receivers import (
    TAKEN,
    ReceiverProcess,
    ask,
    get,
    post,
    read_json,
    read_page,
)


def hostname(receiver, address):
    """Return what a device behind a proxy is told that its name is."""
    _, body = ask(receiver, "GET", "/metadata", None, {"X-Forwarded-For": address})
    return json.loads(body.decode())["hostname"]


def test_names_devices_as_a_hosts_file_does(tmp_path):
    names = tmp_path / "names"
    names.write_text("# all of them\n10.0.0.1 first.example first # one\n\n"
                     "127.0.0.1\tme.example\n2001:DB8::1 six\n10.0.0.1 later\n")
    with ReceiverProcess("--names", str(names), "--trust-proxy", "127.0.0.1") as receiver:
        assert hostname(receiver, "10.0.0.1") == "first.example"
        assert hostname(receiver, "127.0.0.1") == "me.example"
        assert hostname(receiver, "2001:db8::1") == "six"
        assert hostname(receiver, "10.0.0.2").startswith("practice-")


def test_shows_the_name_of_a_device_wherever_it_is_listed(tmp_path):
    (tmp_path / "names").write_text("127.0.0.1 me.example\n")
    with ReceiverProcess("--names", str(tmp_path / "names")) as receiver:
        assert post(receiver) == TAKEN
        assert read_json(receiver, "/metadata")["hostname"] == "me.example"
        assert 'title="me.example"' in read_page(receiver)
        assert "me.example" in read_page(receiver, "/devices/127.0.0.1")
        device, = read_json(receiver, "/devices")["devices"]
        assert device["hostname"] == "me.example"


def test_without_names_a_device_is_called_after_its_id(receiver):
    assert read_json(receiver, "/metadata")["hostname"] == (
        "practice-" + device_id("127.0.0.1")[:8])


def test_takes_every_option_together(tmp_path):
    data = tmp_path / "events"
    (tmp_path / "names").write_text("127.0.0.1 me.example\n")
    (tmp_path / "only").write_text("web-01 ::1\n")
    words = (f"--host 127.0.0.1 --only 127.0.0.1 @{tmp_path}/only --quiet-after 0.5 "
             f"--host-name a.example --host-name b.example --trust-proxy 127.0.0.1 "
             f"--names {tmp_path}/names --keep 0.5 --notify http://127.0.0.1:9/ "
             f"--notify-on failed,quiet,succeeded --allow-delete --data {data}").split()
    with ReceiverProcess(*words) as receiver:
        for host, status in (("a.example", 200), ("b.example", 200), ("c.example", 403)):
            assert ask(receiver, "GET", "/devices", None, {"Host": host})[0] == status
        for name, status in (("web-01", 200), ("me.example", 200), ("web-02", 404)):
            assert ask(receiver, "GET", f"/devices/{name}/metadata")[0] == status
        for forwarded, status in (("10.0.0.1", 404), ("0:0::1", 200)):
            headers = {"X-Forwarded-For": forwarded}
            assert ask(receiver, "GET", "/metadata", None, headers)[0] == status
        assert data.exists()


def test_serves_https_with_a_certificate_and_its_key(authority):
    certificate = str(authority / "good")
    with ReceiverProcess("--tls-cert", certificate, "--tls-key", certificate) as receiver:
        assert receiver.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
        document = get(receiver.url + "/metadata", urllib.request.HTTPSHandler(context=context))
        assert json.loads(document.decode())["user_state_url"] == receiver.url + "/events"
