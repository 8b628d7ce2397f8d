"""What pytest says before it begins, and the order of the tests."""
import os
import random

from support.fuzzing import FUZZ_SEED
from support.interpreters import PYTHONS
from support.tools import TOOLS, find


def pytest_collection_modifyitems(items):
    """ORDER=N shuffles the tests, by the seed N."""
    if os.environ.get("ORDER"):
        random.Random(os.environ["ORDER"]).shuffle(items)


def pytest_report_header():
    """Tell what was found, so that the reasons of skipped tests are no surprise."""
    found = [name for name in TOOLS if find(name)]
    missing = [name for name in TOOLS if name not in found]
    return [f"interpreters: {', '.join(PYTHONS)}", f"tools: {', '.join(found)}",
            f"not installed: {', '.join(missing) or 'none of the tools'}",
            f"root: {'yes' if os.getuid() == 0 else 'no'}",
            f"order: {os.environ.get('ORDER') or 'as written; ORDER=N shuffles it'}"]


def pytest_report_collectionfinish(items):
    """Tell the seed, if there is a test that takes it."""
    if any("/fuzz/" in str(item.path) for item in items):
        return f"seed of the fuzzers: FUZZ_SEED={FUZZ_SEED}"
    return []
