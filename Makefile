# A machine with Python 3.11, make and git is enough; everything else goes into .venv.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
JAX := .venv-jax

.DEFAULT_GOAL := help
.PHONY: help install reproduce test test-openvino test-jax lint lab clean

help:
	@echo "make reproduce       phantoms -> networks -> report, X-rays and CT, without a question (about 15 minutes on 2 cores)"
	@echo "make test            the whole test suite, every notebook once in smoke size"
	@echo "make test-openvino   scoring, with OpenVINO installed"
	@echo "make test-jax        networks and training on JAX, in an environment without TensorFlow"
	@echo "make lab             JupyterLab on the notebooks"
	@echo "make install         only the virtual environment"
	@echo "make clean           remove .venv, .venv-jax and runs/, with all that was trained there"
	@echo "make lint            ruff on modules and notebooks"

install: $(VENV)/installed

# Stamped last, so that an interrupted installation is taken up again.
$(VENV)/installed: requirements.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is wanted: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(RUN) -m uv pip install --python $(RUN) -r requirements.txt
	$(RUN) -m uv pip install --python $(RUN) --no-deps --editable .
	@touch $@

reproduce: install
	$(RUN) -m covidtf reproduce notebooks/params/phantom-xray.yaml
	$(RUN) -m covidtf reproduce notebooks/params/phantom-ct.yaml

test: install
	$(RUN) -m pytest

# With the engine that is optional: without it, its tests skip.
test-openvino: install
	$(RUN) -m uv pip install --python $(RUN) --constraint requirements.txt --editable ".[openvino]"
	$(RUN) -m pytest tests/test_scoring.py

test-jax: $(JAX)/installed
	KERAS_BACKEND=jax $(JAX)/bin/python -m pytest tests/test_networks.py tests/test_training.py

$(JAX)/installed: requirements-jax.txt $(VENV)/installed
	$(PYTHON) -m venv $(JAX)
	$(RUN) -m uv pip install --python $(JAX)/bin/python -r requirements-jax.txt
	$(RUN) -m uv pip install --python $(JAX)/bin/python --no-deps --editable .
	@touch $@

lint: install
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

lab: install
	cd notebooks && ../$(VENV)/bin/jupyter lab $(ARGS)

clean:
	rm -rf $(VENV) $(JAX) runs
