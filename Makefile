# Nothing but Python 3 and make; PYTHON=python3.8 takes another one.
PYTHON = python3

.PHONY: demo serve test test-slow test-rest bench clean

demo:  ## the main job against the service in tests/, on a free port
	@$(PYTHON) -B tests/demo.py

serve:  ## the service to practise on, until Ctrl-C
	@$(PYTHON) -B tests/service.py

# All tests, in two processes at once; TESTS="-k pipe" for some. DEBOOTSTRAP=1 adds those that
# make a small Debian, as root.
SLOW = $(addprefix tests/test_,delivery.py hurt.py run.py shape.py)
PYTEST = DEBOOTSTRAP=$(DEBOOTSTRAP) .venv/bin/python -m pytest

test: .venv/bin/pytest
ifdef TESTS
	@$(PYTEST) $(TESTS)
else
	@$(MAKE) --no-print-directory --keep-going --output-sync --jobs=2 test-slow test-rest
endif

test-slow:
	@$(PYTEST) $(SLOW)

test-rest:
	@$(PYTEST) $(filter-out $(SLOW),$(wildcard tests/test_*.py))

.venv/bin/pytest:
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip --quiet --disable-pip-version-check install pytest

bench:  ## what an event costs, beside what it replaces
	@$(PYTHON) -B tests/bench.py

clean:
	rm -rf .venv .pytest_cache __pycache__ tests/__pycache__
