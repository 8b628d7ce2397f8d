"""How long the fuzzers take, and the seed of their dice."""
import os
import random

FUZZ_TIMES = int(os.environ.get("FUZZ") or (3 if os.environ.get("SLOW") else 1))
FUZZ_SEED = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(10**9))
