PYTHON ?= python3.11
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-faults test-gpu test-nvidia test-images test-s3 audit lint types up down clean

help: ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[server,worker,dev]'
	@touch $@

install: $(INSTALLED) ## create .venv with every pinned package

demo: $(INSTALLED) ## profile, search, retrain, evaluate and export in minutes; DATA=folder takes CamVid instead of generated scenes
	$(BIN)/python -m services.embedded.demo $(if $(DATA),--data '$(DATA)')

test: lint types ## lint, types, import rules and all tests but the five kinds below
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-faults: $(INSTALLED) ## real processes killed, stopped, cut off: the list of faults, and a table of what was measured (minutes)
	$(BIN)/pytest -m "(fault or row) and not s3"

test-gpu: $(INSTALLED) ## the tests that need a GPU with TensorRT
	$(BIN)/pytest -m gpu

test-nvidia: $(INSTALLED) ## what TensorRT is given and its API, against NVIDIA's packages, without a GPU (minutes)
	$(BIN)/pytest -m nvidia

test-images: $(INSTALLED) ## what each container image installs, in clean environments (minutes)
	$(BIN)/pytest -m image

test-s3: $(INSTALLED) ## the S3 store against a real server, Ceph's, whose Debian packages are fetched (a minute)
	$(BIN)/pytest -m s3

audit: ## known vulnerabilities of the pinned packages, as the internet tells them
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet pip-audit==2.10.1
	build/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement constraints.txt

lint: $(INSTALLED) ## style, format and import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: $(INSTALLED) ## mypy --strict
	$(BIN)/mypy

up: $(INSTALLED) ## start the service on this machine
	$(BIN)/python -m services.embedded up

down: $(INSTALLED) ## stop it
	$(BIN)/python -m services.embedded down

clean: ## stop the service; remove the environment, its state and everything built
	[ ! -e $(INSTALLED) ] || $(BIN)/python -m services.embedded down
	[ ! -e .fasterseg/demo ] || $(BIN)/python -m services.embedded down --state .fasterseg/demo
	rm -rf .venv .fasterseg demo-out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
