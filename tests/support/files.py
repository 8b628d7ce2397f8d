"""The files of the project that tests read and run."""
import os

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOP = os.path.dirname(TESTS)
SCRIPT = os.path.join(TOP, "userstate.py")
with open(SCRIPT, "rb") as file:
    SOURCE = file.read()
