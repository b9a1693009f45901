# Everything starts from an empty folder with Python 3.11 and Java 17: `make demo`, `make test`.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
AIRFLOW := .venv-airflow
CLASSES := $(VENV)/classes.jsa
CONFIG ?= conf/demo.yaml
LOGS ?=
NAME := $(basename $(notdir $(CONFIG)))
DEMO := var/demo/$(NAME)
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: install airflow demo test test-unit lint bench soak package clean help

install: $(VENV)/installed ## install everything into .venv (half a minute)

$(VENV)/installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 was not found: install it, or name it with PYTHON=/path/to/python3.11"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$(PYTHON) is not Python 3.11: name one with PYTHON=/path/to/python3.11"; exit 2; }
	@{ [ -n "$$JAVA_HOME" ] && [ -x "$$JAVA_HOME/bin/java" ]; } || command -v java >/dev/null || { echo "Java was not found: install a Java 17 runtime, or point JAVA_HOME at one"; exit 2; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[test,lint,baselines,bench]'
	@rm -f $(BIN)/spark-submit # a link to the file that uv keeps
	@printf '#!%s\nfrom pipelines.spark.submit import main\n\nmain()\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/spark-submit && chmod +x $(BIN)/spark-submit
	@touch $@

airflow: $(AIRFLOW)/installed ## install Airflow into .venv-airflow, for the DAGs in airflow_dags/

$(AIRFLOW)/installed: constraints-airflow.txt $(VENV)/installed
	@[ -x $(AIRFLOW)/bin/python ] || $(BIN)/uv venv --quiet --python $(BIN)/python $(AIRFLOW)
	$(BIN)/uv pip install --quiet --python $(AIRFLOW)/bin/python -c constraints-airflow.txt apache-airflow apache-airflow-providers-apache-spark
	@touch $@

demo: install ## run the whole loop; CONFIG=conf/x.yaml LOGS=path for another world
	$(BIN)/dr run --config $(CONFIG) --workdir $(DEMO) $(if $(LOGS),--logs $(LOGS)) $$([ -f $(DEMO)/report/summary.json ] && echo --fresh)

test: install ## run the linters and all tests
	@$(MAKE) --no-print-directory -j3 airflow lint $(CLASSES)
	JDK_JAVA_OPTIONS="$$JDK_JAVA_OPTIONS '-XX:SharedArchiveFile=$(CURDIR)/$(CLASSES)' -Xlog:disable" $(BIN)/python -m pytest

test-unit: install ## run the tests that start no JVM
	$(BIN)/python -m pytest -m unit

$(CLASSES): $(VENV)/installed tests/load_classes.py
	JDK_JAVA_OPTIONS="$$JDK_JAVA_OPTIONS '-XX:ArchiveClassesAtExit=$(CURDIR)/$(CLASSES)' -Xlog:disable" $(BIN)/python -m tests.load_classes

lint: install ## ruff, mypy (strict), import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install ## measure the hot loops beside other libraries; one JSON line each
	$(BIN)/python -m benchmarks.record kernels
	$(BIN)/python -m benchmarks.record scores
	$(BIN)/python -m benchmarks.record train
	$(BIN)/python -m benchmarks.record mstep --items 20000000
	$(BIN)/python -m benchmarks.record retrieval
	$(BIN)/python -m benchmarks.record whole_run --sizes 1

soak: install ## days of refreshes killed at random, and a kill at every named point (an hour)
	$(BIN)/python -m benchmarks.soak

package: install ## dist/: the wheel, and environment.tar.gz for Spark executors (gigabytes: torch brings CUDA)
	rm -rf dist .venv-package
	$(BIN)/uv build --quiet --wheel --out-dir dist
	$(BIN)/uv venv --quiet --python $(BIN)/python .venv-package
	$(BIN)/uv pip install --quiet --python .venv-package/bin/python -c constraints.txt dist/*.whl
	$(BIN)/venv-pack --prefix .venv-package --output dist/environment.tar.gz --compress-level 1 --quiet
	@ls -lh dist

clean: ## remove the environment and everything the demo and the tests wrote
	rm -rf $(VENV) $(AIRFLOW) .venv-package var build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18
