# Nothing but Python 3 and make, and for the tests pip; PYTHON=python3.8 takes another one.
PYTHON = python3
# Under env -i there is none.
PATH ?= /usr/local/bin:/usr/bin:/bin
export PATH

.PHONY: help demo serve test venv lint bench clean receiver.pyz

help:  ## this list
	@sed -n 's/^\([a-z.]*\):.*##/make \1\t/p' Makefile

demo:  ## the main job against the receiver in tests/, on a free port
	@$(PYTHON) -B tests/demo.py

PORT = 8000
serve:  ## the receiver, until Ctrl-C; PORT=8001 for another port
	@$(PYTHON) -B tests/receiver --port $(PORT)

# The package and the program, which it imports and serves.
receiver.pyz:  ## the receiver as one file to copy to a server
	@folder=$$(mktemp -d) && mkdir "$$folder/receiver" "$$folder/receiver/pages" && \
	cp tests/receiver/*.py "$$folder/receiver" && cp userstate.py "$$folder" && \
	cp tests/receiver/pages/* "$$folder/receiver/pages" && \
	$(PYTHON) -m zipapp "$$folder" --compress --main receiver.__main__:main \
	  --python "/usr/bin/env python3" --output $@; status=$$?; rm -rf "$$folder"; exit $$status

# Each folder in a process of its own, four at once, as most of the time they wait, and the
# last names first, as those take longest; their dots mix. TESTS="tests/run -k pipe" for some; ORDER=7 shuffles them. SLOW=1 adds those that
# take minutes, a browser or cloud-init, or make a Debian, as root.
NAMES = $(patsubst tests/%/,test-%,$(sort $(dir $(wildcard tests/*/test_*.py))))
FOLDERS = $(shell printf '%s\n' $(NAMES) | sort -r)
PYTEST = SLOW=$(SLOW) .venv/bin/python -X dev -m pytest -rs

test: venv  ## all tests; TESTS="tests/run -k pipe" for some, ORDER=7, SLOW=1
ifdef TESTS
	@$(PYTEST) $(TESTS)
else
	@$(MAKE) --no-print-directory --keep-going --jobs=4 $(FOLDERS)
endif

.PHONY: $(FOLDERS)
$(FOLDERS): test-%:
	@$(PYTEST) tests/$*

# The virtual environment is made anew when its Python is gone, or another one; by one make
# at a time, where there is a flock.
WHICH = import sys; print(sys.base_prefix, *sys.version_info[:2])
PIP = .venv/bin/python -m pip --quiet --disable-pip-version-check
venv:
	@exec 9< Makefile; ! command -v flock > /dev/null || flock 9; \
	wanted=$$($(PYTHON) -c '$(WHICH)') || exit; \
	[ "$$(.venv/bin/python -c '$(WHICH)' 2> /dev/null)" = "$$wanted" ] && \
	.venv/bin/python -c 'import pytest' 2> /dev/null || { rm -rf .venv && \
	$(PYTHON) -m venv .venv && $(PIP) install pytest; }

RUFF = .venv/bin/python -m ruff check --quiet --no-cache --output-format concise
lint: venv  ## the style of the program and of the tests, by ruff
	@.venv/bin/python -m ruff --version > /dev/null 2>&1 || $(PIP) install ruff
	@$(RUFF) --config .ci/ruff.toml userstate.py; program=$$?; $(RUFF) tests && exit $$program

bench:  ## what an event costs, beside what it replaces
	@$(PYTHON) -B tests/bench.py

clean:  ## away with all that the others made
	rm -rf .venv .pytest_cache tests/.pytest_cache receiver.pyz
	find . -name __pycache__ -prune -exec rm -rf {} +
