#!/usr/bin/env python3
"""The platform in a file: a metadata service and a timeline to practise on.

    python3 tests/service.py [--host ADDRESS] [--port N] [--data FILE] [--only ADDRESS ...]

Answers as the servers behind metadata.packet.net did: GET /metadata, POST /events. Every
source address is a device with a timeline of its own. A person reads the timelines at /,
a program at /devices/<id>/events.
"""
import argparse
import datetime
import html
import http.server
import json
import re
import socket
import socketserver
import sys
import threading
import uuid

BODY_MOST = 4 << 20  # bytes of an event
ENTRY = ("id", "type", "state", "body", "created_at", "ip")  # of a timeline
FIELDS = {"state": "", "code": 0, "message": ""}  # and what Go makes of those left out


def read_event(body):
    """Return the event in body (bytes) as Go's encoding/json reads it into a struct.

    Raises ValueError for what that refuses: quoted, fractional, exponent or 65-bit codes,
    strings that are none, a byte-order mark, anything behind the document. It takes names
    in any case, the last of equal ones, null and nothing as the zero value, and makes
    U+FFFD of every byte that is not UTF-8.
    """
    def refuse(text):
        raise ValueError(text)
    try:
        text = re.sub("[\udc80-\udcff]", "\ufffd", body.decode("utf-8", "surrogateescape"))
        pairs = json.loads(text, object_pairs_hook=_Pairs, parse_constant=refuse,
                           parse_int=lambda digits: int(digits[:30]))
    except RecursionError:
        raise ValueError("too deep") from None
    if pairs is not None and not isinstance(pairs, _Pairs):
        raise ValueError("no object")
    event = dict(FIELDS)
    for name, value in pairs or ():
        name = name.lower().replace("\u017f", "s")  # Go folds the long s, too
        if name not in FIELDS or value is None:
            continue
        if type(value) is not type(FIELDS[name]):
            raise ValueError(name)
        if name == "code" and not -2**63 <= value < 2**63:
            raise ValueError(name)
        event[name] = value
        if name != "code":  # a lone surrogate
            event[name] = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return event


class _Pairs(list):
    """A JSON object as (name, value) pairs."""


class Service(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """The service at (host, port), port 0 for a free one; serve with serve_forever()."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host="127.0.0.1", port=0, data=None, only=None):
        self.only = None if only is None else frozenset(only)
        self.lock = threading.Lock()
        self.timelines = {}  # device id: its events, oldest first
        self.addresses = {}  # device id: its address
        self.data = None
        if data:
            self.data = open(data, "ab+", buffering=0)
            self.restore()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler)

    @property
    def url(self):
        """The address of the service, without a slash at its end."""
        host, port = self.server_address[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def server_bind(self):
        # HTTPServer's asks DNS for the name of the host, which can take long.
        socketserver.TCPServer.server_bind(self)

    def device(self, address):
        """Return the id of the device at address, or None if it is not known."""
        if self.only is not None and address not in self.only:
            return None
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"device:{address}"))

    def put(self, address, event):
        """Put event on the timeline of the device at address, if it is known.

        Raises OSError, and keeps nothing of the event, if the data file cannot take it.
        """
        device = self.device(address)
        if device is None:
            return
        now = datetime.datetime.now(datetime.timezone.utc)
        entry = {
            "id": str(uuid.uuid4()),
            "type": f"user.{event['code']}",
            "state": event["state"],
            "body": event["message"],
            "created_at": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "ip": address,
        }
        with self.lock:
            if self.data:
                line, end = json.dumps(entry).encode() + b"\n", self.data.seek(0, 2)
                try:
                    if self.data.write(line) != len(line):
                        raise OSError("the data file took half an event")
                except OSError:
                    self.data.truncate(end)
                    raise
            self.add(entry)

    def add(self, entry):
        device = str(uuid.uuid5(uuid.NAMESPACE_URL, f"device:{entry['ip']}"))
        self.addresses[device] = entry["ip"]
        self.timelines.setdefault(device, []).append(entry)

    def restore(self):
        """Read the events of the data file; end a line that a crash left half written."""
        self.data.seek(0)
        content = self.data.read()
        for line in content.splitlines():
            try:
                entry = json.loads(line.decode())
                entry = {name: entry[name] for name in ENTRY}
                if not all(isinstance(value, str) for value in entry.values()):
                    raise ValueError("not strings")
                self.add(entry)
            except (ValueError, KeyError, TypeError, RecursionError):
                print(f"service: {self.data.name}: left out a line that is no event",
                      file=sys.stderr)
        if content and not content.endswith(b"\n"):
            self.data.write(b"\n")

    def timeline(self, device):
        """Return the events of device, newest first."""
        with self.lock:
            return self.timelines.get(device, [])[::-1]

    def server_close(self):
        super().server_close()
        if self.data:
            self.data.close()

    def handle_error(self, request, client_address):
        """Say nothing of a client that went away."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one client."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "practice", ""
    timeout = 10  # seconds that a client may take over anything

    def log_message(self, format, *args):
        """Say nothing: the timeline is the log."""

    def answer(self):
        path = self.path.split("?")[0]
        self.address = self.client_address[0].replace("::ffff:", "")  # IPv4 in IPv6
        body = self.body()
        if body is None:
            return
        if path == "/events":
            self.event(body)
        elif path == "/metadata":
            self.metadata()
        elif path == "/" and self.command in ("GET", "HEAD"):
            self.reply(200, page(self.server), "text/html; charset=utf-8")
        elif path.startswith("/devices/") and path.endswith("/events"):
            self.events(path.split("/"))
        else:
            self.reply_json(404, {"message": "resource not found"})

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def body(self):
        """Return the body of the request, or answer that it is not good."""
        length = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding"):
            status = 411
        elif not re.fullmatch("[0-9]+", length):
            status = 400
        elif len(length) > 9 or int(length) > BODY_MOST:
            status = 413
        else:
            body = self.rfile.read(int(length))
            return body if len(body) == int(length) else None
        self.close_connection = True
        self.reply(status)
        return None

    def event(self, body):
        try:
            event = read_event(body)
        except ValueError:
            return self.reply(400)
        try:
            self.server.put(self.address, event)
        except OSError:
            return self.reply(500)
        return self.reply(200)

    def metadata(self):
        device = self.server.device(self.address)
        if self.command != "GET":
            self.reply_json(405, {"message": "method not allowed"})
        elif device is None:
            self.reply_json(404, {"message": "resource not found"})
        else:
            host, port = self.connection.getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            self.reply_json(200, document(device, self.address, f"http://{host}:{port}"))

    def events(self, parts):
        device = parts[2]
        if len(parts) != 4 or device not in self.server.timelines and (
                device != self.server.device(self.address)):
            return self.reply_json(404, {"errors": ["Not found"]})
        events = self.server.timeline(device)
        return self.reply_json(200, {"events": events, "meta": {"total": len(events)}})

    def reply_json(self, status, value):
        self.reply(status, json.dumps(value, indent=2).encode(), "application/json")

    def reply(self, status, body=b"", kind=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if kind:
            self.send_header("Content-Type", kind)
            self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def document(device, address, service):
    """Return a metadata document of the real shape, its values invented."""
    family = 6 if ":" in address else 4
    size = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe" if family == 6 else "255.255.255.254"

    def network(of, ip, public, netmask):
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"address:{ip}")),
            "address_family": of, "netmask": netmask,
            "created_at": "2024-02-25T18:55:11Z", "public": public,
            "cidr": 127 if of == 6 else 31, "management": True, "enabled": True,
            "network": ip, "address": ip, "gateway": ip,
            "parent_block": {"network": ip, "netmask": netmask,
                             "cidr": 56 if of == 6 else 25, "href": f"/ips/{device}"},
        }

    return {
        "id": device,
        "hostname": f"practice-{device[:8]}",
        "iqn": f"iqn.2024-02.net.packet:device.{device[:8]}",
        "operating_system": {
            "slug": "custom_ipxe", "distro": "custom_ipxe", "version": "1",
            "license_activation": {"state": "unlicensed"}, "image_tag": None},
        "plan": "c3.medium.x86", "reserved": False, "class": "c3.medium.x86",
        "facility": "da11", "metro": "da",
        "private_subnets": ["10.0.0.0/8"],
        "tags": ["practice"],
        "ssh_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINotAKeyJustForPractice you@laptop"],
        "customdata": {},
        "specs": {
            "cpus": [{"count": 1, "type": "AMD EPYC 7402P 24-Core Processor"}],
            "memory": {"total": "64GB"},
            "drives": [{"count": 2, "size": "240GB", "type": "SSD", "category": "boot"},
                       {"count": 2, "size": "480GB", "type": "SSD", "category": "storage"}],
            "nics": [{"count": 2, "type": "10Gbps"}],
            "features": {"raid": True, "txt": True, "uefi": False}},
        "switch_short_id": "5707e61f",
        "storage": {
            "disks": [{"device": "/dev/sda", "wipeTable": True, "partitions": [
                {"label": "BIOS", "number": 1, "size": 4096},
                {"label": "SWAP", "number": 2, "size": "3993600"},
                {"label": "ROOT", "number": 3, "size": 0}]}],
            "filesystems": [
                {"mount": {"device": "/dev/sda3", "format": "ext4", "point": "/",
                           "create": {"options": ["-L", "ROOT"]}}},
                {"mount": {"device": "/dev/sda2", "format": "swap", "point": "none",
                           "create": {"options": ["-L", "SWAP"]}}}]},
        "volumes": [],
        "network": {
            "bonding": {"mode": 4, "link_aggregation": "mlag_ha",
                        "mac": "02:00:5e:10:00:01"},
            "interfaces": [{"name": "eth0", "mac": "02:00:5e:10:00:01", "bond": "bond0"},
                           {"name": "eth1", "mac": "02:00:5e:10:00:02", "bond": "bond0"}],
            "addresses": [network(family, address, True, size),
                          network(4, "10.70.17.9", False, "255.255.255.254")],
            "metal_gateways": []},
        "api_url": service,
        "phone_home_url": f"{service}/phone-home",
        "user_state_url": f"{service}/events",
    }


PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="2">
<meta name="viewport" content="width=device-width">
<title>Timeline</title>
<style>
body { font: 16px/1.5 sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #ccc; padding: .4em; text-align: left; vertical-align: top }
td { overflow-wrap: anywhere } td.body { white-space: pre-wrap; width: 50% }
.running { color: #05c } .succeeded { color: #080 } .failed { color: #c00 }
h2 a { font-size: 60%; font-weight: normal }
</style>
<h1>Timeline</h1>
"""


def page(service):
    """Return the page of all timelines, newest first, as bytes of HTML."""
    parts = [PAGE]
    with service.lock:
        addresses = sorted(service.addresses.items(), key=lambda item: item[1])
    for device, address in addresses:
        parts.append(f'<h2>{html.escape(address)} <a href="/devices/{device}/events">'
                     "JSON</a></h2>\n<table>\n<tr><th>Type<th>State<th>Message<th>Time"
                     "<th>Address\n")
        for event in service.timeline(device):
            cell = {name: html.escape(value) for name, value in event.items()}
            known = cell["state"] if cell["state"] in ("running", "succeeded", "failed") else ""
            parts.append(
                f'<tr><td>{cell["type"]}<td class="{known}">{cell["state"]}'
                f'<td class="body">{cell["body"]}<td>{cell["created_at"]}'
                f'<td>{cell["ip"]}\n')
        parts.append("</table>\n")
    if not addresses:
        parts.append("<p>No event yet.\n")
    return "".join(parts).encode("utf-8", "replace")


def main(argv=None):
    """Serve until Ctrl-C; return the exit status."""
    parser = argparse.ArgumentParser(
        description="A metadata service and a timeline to practise on.")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS",
                        help="the address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, metavar="N",
                        help="the port, 0 for a free one (8000)")
    parser.add_argument("--data", metavar="FILE",
                        help="keep the events in this file, a line of JSON each")
    parser.add_argument("--only", nargs="+", metavar="ADDRESS",
                        help="the devices that are known; without it every address is one")
    options = parser.parse_args(argv)
    try:
        service = Service(options.host, options.port, options.data, options.only)
    except (OSError, OverflowError) as error:
        print(f"service: cannot start on {options.host} port {options.port}: {error}",
              file=sys.stderr)
        return 1
    try:
        print(f"# the timeline: {service.url}/\n"
              f"export USERSTATE_METADATA_URL={service.url}/metadata", flush=True)
        service.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        service.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
