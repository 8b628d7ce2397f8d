"""How long the fuzzers take, and the seeds of their dice."""
import os
import random

FUZZ_TIMES = int(os.environ.get("FUZZ") or (3 if os.environ.get("SLOW") else 1))
FUZZ_SEED = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(10**9))


def seeds_of(number):
    """Return the seeds of so many calls, or of FUZZ_TIMES as many."""
    return range(FUZZ_SEED * 10000, FUZZ_SEED * 10000 + number * FUZZ_TIMES)
