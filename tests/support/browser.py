"""A Chromium, as a person uses it."""
import json
import re
import shutil
import subprocess
import tempfile
import urllib.request
from contextlib import ExitStack

from support.tools import find

DRIVER = find("chromedriver")
CHROMIUM = find("chromium") or find("google-chrome")
ARGUMENTS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
             "--disable-background-networking --disable-component-update --disable-sync "
             "--disable-dev-shm-usage").split()
WIDE, NARROW = 1200, 400  # pixels
HEIGHT = 800


class Browser:
    """A Chromium of its own, driven by the WebDriver protocol."""

    def __enter__(self):
        with ExitStack() as stack:
            folder = tempfile.mkdtemp()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self.session = f"http://127.0.0.1:{self.start_driver(stack)}/session"
            options = {"args": [*ARGUMENTS, f"--user-data-dir={folder}"], "binary": CHROMIUM}
            made = self.ask("", capabilities={
                "alwaysMatch": {"goog:chromeOptions": options}})
            self.session += "/" + made["sessionId"]
            stack.callback(self.send, "DELETE")
            self.ending = stack.pop_all()
        return self

    def __exit__(self, *exception):
        self.ending.close()

    @staticmethod
    def start_driver(stack):
        """Start a driver that stack ends; return its port."""
        for _ in range(10):  # it gives up if its port is free in one family of addresses only
            driver = stack.enter_context(subprocess.Popen(
                [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
            stack.callback(driver.kill)
            for line in driver.stdout:
                found = re.search(rb"successfully on port (\d+)", line)
                if found:
                    return int(found.group(1))
        raise AssertionError("the driver does not start")

    def send(self, method, path="", body=None):
        """Send a request of the protocol; return the value of its answer."""
        request = urllib.request.Request(self.session + path, body, method=method,
                                         headers={"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as reply:
            return json.loads(reply.read().decode())["value"]

    def ask(self, path, **values):
        return self.send("POST", path, json.dumps(values).encode())

    def devtools(self, command, **values):
        return self.ask("/goog/cdp/execute", cmd=command, params=values)

    def show(self, url, width=WIDE, dark=False):
        """Open url in a window of this width."""
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=HEIGHT,
                      deviceScaleFactor=1, mobile=width == NARROW)
        self.devtools("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.ask("/url", url=url)

    def run(self, script, *args):
        return self.ask("/execute/sync", script=script, args=args)
