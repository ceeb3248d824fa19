# On a fresh clone: `make demo` or `make test`. Each sets everything up first.
# make demo HUMAN=1 waits for your own thumbs; SEED=1 varies everything random; METHOD=kto aligns by single thumbs.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: setup demo test faults lint docs reference package clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(VENV)/bin/trueup demo $(if $(HUMAN),--human) $(if $(SEED),--seed $(SEED)) $(if $(METHOD),--method $(METHOD))
	@echo 'The command trueup is in $(VENV)/bin: `source $(VENV)/bin/activate` puts it on the PATH of this shell.'

test: setup lint
	$(VENV)/bin/python -m pytest

# Kills every stage at TRIALS of its file operations and compares; half an hour at 20. Its table is in docs/reliability.md.
faults: setup
	rm -rf build/faults
	$(VENV)/bin/python tests/faults/trials.py build/faults $(or $(TRIALS),20)

# mypy and import-linter do not see the mapping of stages/ and feedback/ in an editable install: they read a copy.
lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	rm -rf $(VENV)/installed build
	$(VENV)/bin/pip install --quiet --no-deps --target $(VENV)/installed .
	MYPYPATH=$(VENV)/installed $(VENV)/bin/mypy -p trueup
	PYTHONPATH=$(VENV)/installed $(VENV)/bin/lint-imports --no-cache

# The documentation as a site in build/docs, without the network; every warning is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo build/docs/index.html

# What is made from the code and committed: the schema of run files and two pages of reference.
reference: setup
	$(VENV)/bin/trueup schema > configs/run.schema.json
	$(VENV)/bin/python docs/site/reference.py

# The wheel and the source distribution in dist, checked as a package index would.
package: setup
	rm -rf dist build/lib
	$(VENV)/bin/python -m build --outdir dist
	$(VENV)/bin/twine check --strict dist/*

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
