# make demo     the main job with the draft voice, on a short story
# make test     the quick tests; make test-long the slow ones; make test-reference the slowest
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: install demo test test-long test-reference lint clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[draft,test]'
	touch $@

demo: install
	$(BIN)/python -m jobs.generate book=examples/the_lighthouse_clock.txt engine=espeak

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# Processes with one thread each: on two cores, torch with two threads in each would wait for itself. A third process
# fills the time in which quick tests wait for jobs of their own; slow ones need up to 8 GB of memory each.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not long and not gpu and not reference" -n 3 --dist loadscope

test-long: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "long and not gpu" -n 2 --dist loadscope

# By hand: two chapters of the tiny stand-in against those that commit 98b7de7 made, byte for byte.
test-reference: install
	$(BIN)/python -m pytest -m reference

clean:
	rm -rf $(VENV) build *.egg-info
