# On a fresh clone: `make demo` or `make test`. Each sets everything up first.
# make demo HUMAN=1 waits for your own thumbs; SEED=1 varies everything random; METHOD=kto aligns by single thumbs.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
LLAMA := $(VENV)/.llama-cpp

.PHONY: setup demo ready-to-test test test-all faults older lint docs reference package clean

setup: $(STAMP)

# --no-compile: of more than 20,000 modules, few are ever imported, and Python compiles those when they are.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(VENV)/bin/trueup demo $(if $(HUMAN),--human) $(if $(SEED),--seed $(SEED)) $(if $(METHOD),--method $(METHOD))
	@echo 'The command trueup is in $(VENV)/bin: `source $(VENV)/bin/activate` puts it on the PATH of this shell.'

# What both need, side by side.
ready-to-test: setup
	$(MAKE) --jobs 2 --output-sync lint $(LLAMA)

test: ready-to-test
	$(VENV)/bin/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder -m 'not slow'

# Those marked slow as well: the same things in other shapes.
test-all: ready-to-test
	$(VENV)/bin/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# llama.cpp, for the tests of GGUF files; compiled once, some minutes. Without a C++ compiler those tests are skipped.
$(LLAMA): | $(STAMP)
	CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAVA_BUILD=OFF -DCMAKE_PROJECT_INCLUDE=$(CURDIR)/tests/gguf/llama_cpp.cmake" \
	  $(VENV)/bin/pip install --quiet --constraint constraints.txt llama-cpp-python \
	  && touch $@ || echo 'llama-cpp-python could not be built: the tests that need it will be skipped.'

# Kills every stage at TRIALS of its file operations (drawn by SEED), cuts the power, fills a real disk (needs root), and
# compares. More than an hour; what was tried is kept in build/faults, and the same command goes on. docs/reliability.md has the tables.
faults: setup
	$(VENV)/bin/python tests/faults/trials.py build/faults/killed --trials $(or $(TRIALS),20) --seed $(or $(SEED),0)
	$(VENV)/bin/python tests/faults/power_cut.py build/faults/cut
	$(VENV)/bin/python tests/faults/full_disk.py build/faults/killed

# Installs older versions of transformers and peft from the package index, and lets them read what is exported.
older: setup
	TRUEUP_OLDER=1 $(VENV)/bin/python -m pytest tests/architectures/test_older_readers.py

# mypy and import-linter do not see the mapping of stages/ and feedback/ in an editable install: they read a copy.
lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	rm -rf $(VENV)/installed build/lib build/bdist.*
	$(VENV)/bin/pip install --quiet --no-deps --target $(VENV)/installed .
	MYPYPATH=$(VENV)/installed $(VENV)/bin/mypy -p trueup
	PYTHONPATH=$(VENV)/installed $(VENV)/bin/lint-imports --no-cache

# The documentation as a site in build/docs, without the network; every warning is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict
	@echo build/docs/index.html

# What is made from the code and committed: the schema of run files and two pages of reference.
reference: setup
	$(VENV)/bin/trueup schema > configs/run.schema.json
	$(VENV)/bin/python docs/site/generated.py

# The wheel and the source distribution in dist, checked as a package index would.
package: setup
	rm -rf dist build/lib
	$(VENV)/bin/python -m build --outdir dist
	$(VENV)/bin/twine check --strict dist/*

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache
