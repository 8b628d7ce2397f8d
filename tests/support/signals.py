"""Signals by their names, and a command that counts those it gets."""
import signal

SIGNAL_NAMES = {number: number.name for number in signal.Signals}


def number_of(name):
    base, _, more = name.partition("+")
    return int(getattr(signal, base)) + int(more or 0)


COUNT_SIGNALS = r"""
import signal, sys, time
seen = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, frame: seen.append(number))
print("ready", flush=True)
end = time.monotonic() + 20
while not seen and time.monotonic() < end:
    time.sleep(0.01)
time.sleep(0.3)  # a second one would come within it
print(len(seen), flush=True)
sys.exit(6)
"""
