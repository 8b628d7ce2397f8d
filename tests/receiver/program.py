"""What a machine fetches: userstate.py, and the script that uses it."""
import functools
import hashlib
import pkgutil


@functools.lru_cache(None)
def source():
    """Return the program, bytes."""
    return pkgutil.get_data("userstate", "userstate.py")  # which imports it


@functools.lru_cache(None)
def sha256():
    """Return the SHA-256 of the program, in hexadecimal digits."""
    return hashlib.sha256(source()).hexdigest()


@functools.lru_cache(None)
def template():
    """Return the script as the README has it, with values to be filled in."""
    return pkgutil.get_data("receiver", "pages/user-data.sh").decode("ascii")


def script(url, metadata_url):
    """Return the script with the receiver's url and where a machine asks filled in."""
    values = {"PROGRAM": f"{url}/userstate.py", "SHA256": sha256(),
              "export USERSTATE_METADATA_URL": metadata_url}
    lines = template().splitlines(keepends=True)
    for number, line in enumerate(lines):
        name, equals, _ = line.partition("=")
        if equals and name in values:
            lines[number] = f"{name}={values.pop(name)}\n"
    return "".join(lines)
