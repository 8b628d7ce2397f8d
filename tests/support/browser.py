"""A Chromium, as a person uses it."""
import base64
import json
import re
import shutil
import subprocess
import tempfile
import urllib.request

DRIVER = shutil.which("chromedriver")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
             "--disable-background-networking --disable-component-update --disable-sync "
             "--disable-dev-shm-usage").split()
WIDE, NARROW = 1200, 400  # pixels
HEIGHT = 800


class Browser:
    """A Chromium of its own, driven by the WebDriver protocol."""

    def __enter__(self):
        self.folder = tempfile.mkdtemp()
        for _ in range(10):  # it gives up if its port is free in one family of addresses only
            self.driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE,
                                           stderr=subprocess.DEVNULL)
            lines = iter(self.driver.stdout.readline, b"")
            found = next(filter(None, (re.search(rb"successfully on port (\d+)", line)
                                       for line in lines)), None)
            if found:
                break
            self.driver.communicate()
        self.session = f"http://127.0.0.1:{int(found.group(1))}/session"
        options = {"args": [*ARGUMENTS, f"--user-data-dir={self.folder}"],
                   "binary": CHROMIUM}
        made = self.ask("", capabilities={"alwaysMatch": {"goog:chromeOptions": options}})
        self.session += "/" + made["sessionId"]
        return self

    def __exit__(self, *error):
        urllib.request.urlopen(urllib.request.Request(self.session, method="DELETE")).close()
        self.driver.kill()
        self.driver.communicate()
        shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, path, **values):
        request = urllib.request.Request(self.session + path, json.dumps(values).encode(),
                                         {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as reply:
            return json.loads(reply.read().decode())["value"]

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

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.devtools("Page.captureScreenshot")["data"]))
