"""The platform's own client in Python, which reads the events as it did there."""
import sys

import pytest

from support.processes import run, run_command
from support.receivers import ReceiverProcess

CLIENT = """
import sys, warnings
warnings.simplefilter("ignore")
import packet
manager = packet.Manager(auth_token="none")
manager.end_point = sys.argv[1]
for shown in manager.list_device_events(sys.argv[2], {"per_page": 2}):
    print(shown.type, shown.state, shown.body, shown.ip, shown.modified_by, shown, sep="|")
"""


@pytest.mark.parametrize("name", ["127.0.0.1", "web-01"])
def test_it_lists_the_events_of_a_device(authority, name):
    found = run_command(sys.executable, "-c", "import packet", traces=True)
    if found.status != 0:
        pytest.skip("packet-python is not installed")
    pair, ca = str(authority / "good"), str(authority / "ca.pem")
    with ReceiverProcess("--tls-cert", pair, "--tls-key", pair) as receiver:
        host = f"127.0.0.1:{receiver.server_address[1]}"
        for state in ("running", "failed", "succeeded"):
            assert run(state, "1010", "unpack", url=f"https://{host}/devices/{name}/events",
                       env={"SSL_CERT_FILE": ca}) == (0, "", "")
        done = run_command(sys.executable, "-W", "ignore", "-c", CLIENT, host, name,
                           env={"REQUESTS_CA_BUNDLE": ca})
    assert done.err == ""
    assert done.out == ("user.1010|succeeded|unpack|127.0.0.1|{}|unpack\n"
                        "user.1010|failed|unpack|127.0.0.1|{}|unpack\n")
