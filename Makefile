# Nothing but Python 3 and make, and for the tests pip; PYTHON=python3.8 takes another one.
PYTHON = python3
# Under env -i there is none.
PATH ?= /usr/local/bin:/usr/bin:/bin
export PATH

.PHONY: demo serve test venv test-first test-docs test-rest bench clean

demo:  ## the main job against the service in tests/, on a free port
	@$(PYTHON) -B tests/demo.py

serve:  ## the receiver, until Ctrl-C
	@$(PYTHON) -B tests/service.py

# All tests, in three processes at once, as most of the time they wait; their dots mix.
# TESTS="-k pipe" for some; ORDER=7 shuffles them. SLOW=1 adds those that take minutes,
# a browser or cloud-init, or make a Debian, as root.
FIRST = $(addprefix tests/test_,delivery.py hurt.py shape.py)
DOCS = $(addprefix tests/test_,images.py readme.py recipes.py script.py)
PYTEST = SLOW=$(SLOW) .venv/bin/python -m pytest -rs

test: venv
ifdef TESTS
	@$(PYTEST) $(TESTS)
else
	@$(MAKE) --no-print-directory --keep-going --jobs=3 test-first test-docs test-rest
endif

test-first:
	@$(PYTEST) $(FIRST)

test-docs:
	@$(PYTEST) $(DOCS)

test-rest:
	@$(PYTEST) $(filter-out $(FIRST) $(DOCS),$(wildcard tests/test_*.py))

# The virtual environment is made anew when its Python is gone, or another one; by one make
# at a time, where there is a flock.
WHICH = import sys; print(sys.base_prefix, *sys.version_info[:2])
venv:
	@exec 9< Makefile; ! command -v flock > /dev/null || flock 9; \
	wanted=$$($(PYTHON) -c '$(WHICH)') || exit; \
	[ "$$(.venv/bin/python -c '$(WHICH)' 2> /dev/null)" = "$$wanted" ] && \
	.venv/bin/python -c 'import pytest' 2> /dev/null || { rm -rf .venv && \
	$(PYTHON) -m venv .venv && \
	.venv/bin/python -m pip --quiet --disable-pip-version-check install pytest; }

bench:  ## what an event costs, beside what it replaces
	@$(PYTHON) -B tests/bench.py

clean:
	rm -rf .venv .pytest_cache __pycache__ tests/__pycache__
