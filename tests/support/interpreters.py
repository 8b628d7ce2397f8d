"""The interpreters that are installed, and code that makes one thinner than it is."""
import glob
import os
import pwd
import shutil
import subprocess
import sys
from contextlib import suppress


def find_pythons():
    """Return {version: path} of the interpreters from 3.6 on, oldest first."""
    found = {}
    names = [sys.executable, *(shutil.which(f"python3.{n}") or "" for n in range(6, 30)),
             "/usr/bin/python3"]
    with suppress(KeyError):  # a user without an entry
        home = pwd.getpwuid(os.getuid()).pw_dir
        names += glob.glob(f"{home}/.pyenv/versions/3.*/bin/python3")
    for name in filter(os.path.exists, names):
        with suppress(OSError):  # that it is there does not mean that it works
            shown = subprocess.run([name, "-c", "import sys; print(*sys.version_info[:2])"],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
            version = tuple(map(int, shown.split()))
            if version >= (3, 6):
                found.setdefault(version, name)
    return {"{}.{}".format(*version): found[version] for version in sorted(found)}


PYTHONS = find_pythons()
OLDEST, *_, NEWEST = [*PYTHONS.values(), *PYTHONS.values()]
EDGES = {version: path for version, path in PYTHONS.items() if path in (OLDEST, NEWEST)}

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

WITHOUT_IDNA = """
import sys
for name in ("encodings.idna", "stringprep", "unicodedata"):
    sys.modules[name] = None
try:
    "x.example".encode("idna")
except LookupError:
    pass
else:
    sys.exit("the codec is there")
"""


def hide(module, error=None):
    """Return code after which importing module raises error, by default that it is missing."""
    error = error or f'ModuleNotFoundError("No module named \'{module}\'", name="{module}")'
    return f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "{module}":
            raise {error}
sys.meta_path.insert(0, Hide())
for name in [name for name in sys.modules if name.split(".")[0] == "{module}"]:
    del sys.modules[name]
"""


def resolve_to(*ports):
    """Return code after which every name has these ports of 127.0.0.1 as its addresses."""
    return f"""
import socket
socket.getaddrinfo = lambda *args, **options: [
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in {ports}]
"""


HIDDEN_DNS = """
import socket, threading
answered, asked, find = threading.Event(), threading.Event(), socket.getaddrinfo
def getaddrinfo(*args, **options):
    asked.set()
    answered.wait(60)
    return find("127.0.0.1", *args[1:], **options)
socket.getaddrinfo = getaddrinfo
"""
