# `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXPERIMENT ?= configs/digits.yaml
# As one word for the shell, whatever characters the path contains.
QUOTED_EXPERIMENT = '$(subst ','\'',$(value EXPERIMENT))'
SNAKEMAKE := $(BIN)/snakemake

.PHONY: benchmarks docs help env demo demo-slurm regression test test-slow test-slurm lint format lock lock-check clean

help:
	@echo "make demo       create the environment and run the embedded experiment: train, evaluate, measure, Tables 1-6"
	@echo "make test       create the environment, run the linters, the type checker and the fast tests"
	@echo "make test-slow  run the tests that train or run a whole workflow"
	@echo "make regression run a small experiment and compare it with results/baseline (the regression gate)"
	@echo "make demo-slurm start a Slurm on this machine and run the embedded experiment on it (needs Debian and root)"
	@echo "make test-slurm run the tests that start a real Slurm on this machine (needs Debian and root)"
	@echo "make benchmarks measure every performance goal and write docs/performance.md (use a quiet machine)"
	@echo "make docs       write the generated documentation: docs/configuration.md, configs/schemas, parts of docs/cluster.md"
	@echo "make env        create the environment in $(VENV); CPU=1 installs the CPU build of PyTorch"
	@echo "make lint       run the linters and the type checker; make format formats the code"
	@echo "make lock       lock the requirements in envs/requirements.txt; make lock-check resolves them for every platform"
	@echo "make clean      remove results and data of make demo and make regression; keeps imported numbers and other files"

env: $(INSTALLED)

# `make env CPU=1` installs the CPU builds of PyTorch from PyTorch's own index. They have the locked versions, but other hashes.
ifdef CPU
REQUIREMENTS := -r envs/requirements.in -c envs/requirements.txt --torch-backend cpu --no-verify-hashes
else
REQUIREMENTS := -r envs/requirements.txt
# If uv does not find the packages, pip may find them, because it reads the user's pip configuration.
OR_PIP := || $(BIN)/python -m pip install --quiet $(REQUIREMENTS)
endif

# Every job starts Python. Where Python writes no bytecode (PYTHONDONTWRITEBYTECODE), each would compile torch again for 12 seconds.
# In a relocatable environment scripts find Python by a relative path. The checkout's path may then contain any character.
$(INSTALLED): envs/requirements.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@grep -q '^relocatable' $(VENV)/pyvenv.cfg || echo 'relocatable = true' >> $(VENV)/pyvenv.cfg
	@echo "installing the locked requirements into $(VENV) (about 6 GB on Linux; this takes minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[^ ;]*\).*/\1/p' envs/requirements.txt)"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(REQUIREMENTS) $(OR_PIP)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: env
	@$(SNAKEMAKE) all --profile workflow/profiles/local --configfile $(QUOTED_EXPERIMENT)

demo-slurm: env
	@sh tools/slurm_cluster/packages.sh install
	@$(BIN)/python -m tools.slurm_demo --experiment $(QUOTED_EXPERIMENT)

# Old results are removed first: Snakemake reruns a job when its configuration changes, not when the code changes.
regression: env
	@$(BIN)/python -m tools.clean --keep-data configs/regression_digits.yaml
	@$(SNAKEMAKE) regression --profile workflow/profiles/local --configfile configs/regression_digits.yaml

test: env lint
	@$(BIN)/pytest -n 2 --dist loadfile

test-slow: env
	@$(BIN)/pytest -m "slow and not timing" -n 2 --dist loadfile
	@$(BIN)/pytest -m "slow and timing"

test-slurm: env
	@sh tools/slurm_cluster/packages.sh install
	@$(BIN)/pytest -m slurm

benchmarks: env
	@$(BIN)/python -m benchmarks --update docs/performance.md

docs: env
	@$(BIN)/python -m tools.configuration_docs
	@$(BIN)/python -m tools.cluster_docs

lint: env
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/snakefmt --check Snakefile workflow
	@$(BIN)/mypy

format: env
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/snakefmt Snakefile workflow

lock: env
	@sh envs/lock.sh

lock-check: env
	@sh envs/lock.sh check

clean:
	@test ! -x $(BIN)/python || $(BIN)/python -m tools.clean configs/digits.yaml configs/regression_digits.yaml
