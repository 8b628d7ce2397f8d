# Nothing but Python 3 and make; PYTHON=python3.8 takes another one.
PYTHON = python3
TESTS =

.PHONY: demo serve test bench clean

demo:  ## the main job against the service in tests/, on a free port
	@$(PYTHON) -B tests/demo.py

serve:  ## the service to practise on, until Ctrl-C
	@$(PYTHON) -B tests/service.py

test: .venv/bin/pytest  ## all tests; TESTS="-k pipe" for some
	@.venv/bin/python -m pytest $(TESTS)

.venv/bin/pytest:
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip --quiet --disable-pip-version-check install pytest

bench:  ## what an event costs, beside what it replaces
	@$(PYTHON) -B tests/bench.py

clean:
	rm -rf .venv .pytest_cache __pycache__ tests/__pycache__
