# On a fresh clone: `make demo` or `make test`. Each sets everything up first.
# make demo HUMAN=1 waits for your own thumbs; SEED=1 varies everything random; METHOD=kto aligns by single thumbs.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed


.PHONY: setup demo test faults lint clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(VENV)/bin/trueup demo $(if $(HUMAN),--human) $(if $(SEED),--seed $(SEED)) $(if $(METHOD),--method $(METHOD))

test: setup lint
	$(VENV)/bin/python -m pytest

# Kills every stage at TRIALS of its file operations (drawn by SEED), cuts the power, fills a real disk (needs root), and
# compares. More than an hour; what was tried is kept in build/faults, and the same command goes on. docs/reliability.md has the tables.
faults: setup
	$(VENV)/bin/python tests/faults/trials.py build/faults/killed --trials $(or $(TRIALS),20) --seed $(or $(SEED),0)
	$(VENV)/bin/python tests/faults/power_cut.py build/faults/cut
	$(VENV)/bin/python tests/faults/full_disk.py build/faults/killed

# mypy and import-linter do not see the mapping of stages/ and feedback/ in an editable install: they read a copy.
lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	rm -rf $(VENV)/installed build
	$(VENV)/bin/pip install --quiet --no-deps --target $(VENV)/installed .
	MYPYPATH=$(VENV)/installed $(VENV)/bin/mypy -p trueup
	PYTHONPATH=$(VENV)/installed $(VENV)/bin/lint-imports --no-cache

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
