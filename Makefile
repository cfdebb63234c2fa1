# `make` lists what there is. PYTHON=... chooses the interpreter, VENV=... the environment, CONSTRAINTS=... its versions.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
STUDY ?= builtin
# Processes of pytest; most tests wait for a server or a worker now and then.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n > 8 ? 16 : 2 * n)))
PYTEST_ARGS ?= -m "not endurance and not soak"

BIN = $(abspath $(VENV))/bin
# MLflow and the tests start `python` and `mlflow` by name.
ACTIVE = VIRTUAL_ENV="$(abspath $(VENV))" PATH="$(BIN):$$PATH"
export MLFLOW_DISABLE_TELEMETRY ?= true
# The tests write hundreds of small databases, whose every commit waits for a disk; in memory, where there is enough of
# it and programs may run there, none does.
MEMORY = /dev/shm
TESTS_IN ?= $(shell test "$$(df --output=avail -B 1G $(MEMORY) 2> /dev/null | tail -1)" -ge 8 2> /dev/null && \
	! findmnt -no OPTIONS $(MEMORY) | grep -q noexec && echo $(MEMORY))
# Without compiled files each process takes 9 s instead of 4 to import MLflow and torch, and there are hundreds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help system system-servers system-slurm setup mace run report test endurance compiled lint security tutorial clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

# Every Debian package that is needed stands here, beside a command that succeeds where it is installed.
define INSTALL
missing=
need() { eval "$$2" > /dev/null 2>&1 || missing="$$missing $$1"; }
install() {
	test -n "$$missing" || return 0
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
		apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $$missing
	else
		echo "Needed and not found:$$missing. On Debian: sudo apt-get install$$missing" >&2
		return 1
	fi
}
endef
export INSTALL

system: ## system packages: installed by apt-get as root on Debian, else named
	@eval "$$INSTALL"; \
	need git "git --version"; \
	need python3-venv "$(PYTHON) -c 'import ensurepip, venv'"; \
	install

system-servers: ## the same for `bdqm-tune services up`, and for all tests of databases
	@eval "$$INSTALL"; PATH="$$PATH:/usr/sbin"; \
	need mariadb-server-core "mariadbd --version || mysqld --version"; \
	need mariadb-client "mariadb-dump --version || mysqldump --version"; \
	need openssl "openssl version"; \
	need postgresql "ls /usr/lib/postgresql/*/bin/initdb"; \
	need chromium "chromium --version"; \
	need libfaketime "ls /usr/lib/*/faketime/libfaketimeMT.so.1"; \
	install

system-slurm: ## the same for the tests of jobs on a cluster
	@eval "$$INSTALL"; PATH="$$PATH:/usr/sbin"; \
	need slurm-wlm "slurmctld -V && slurmd -V && command -v sbatch"; \
	need slurm-wlm-torque "command -v qsub && command -v qstat"; \
	need munge "munged --version"; \
	install

# Without `--env-manager local`, MLflow asks pyenv for the Python of the environment that it builds. Where there is no pyenv
# and the environment is active, this answers in its place: it has one Python, the one that the environment was made with.
define PYENV
#!/bin/sh
root="$(abspath $(VENV))/pyenv"
case "$$1" in
root) echo "$$root" ;;
install) test -x "$$root/versions/$$3/bin/python" || { echo "Only $$(ls "$$root/versions") is here, not $$3" >&2; exit 1; } ;;
*) echo "Written by 'make setup' for mlflow; this is not the whole of pyenv" >&2; exit 1 ;;
esac
endef
export PYENV

setup: compiled ## the environment, with the versions in constraints.txt, and what numba compiles

compiled: $(VENV)/.installed
	@$(BIN)/python -m bdqm_tune.compilation

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | system
	@echo "Installing into $(VENV): a minute or two"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) --upgrade pip
	@# setuptools warns, many lines long, of folders that are called like an editable package; of all these files Python
	@# compiles those that are used
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	@command -v pyenv > /dev/null || { \
		there="$(VENV)/pyenv/versions/$$($(BIN)/python -c 'import platform; print(platform.python_version())')/bin"; \
		mkdir -p "$$there"; \
		printf '#!/bin/sh\nexec "%s" "$$@"\n' "$$(readlink -f $(BIN)/python)" > "$$there/python"; \
		echo "$$PYENV" > $(BIN)/pyenv; \
		chmod +x "$$there/python" $(BIN)/pyenv; \
	}
	@touch $@

mace: $(VENV)/.mace ## mace-torch beside it, for the backend of that name and its tests

$(VENV)/.mace: $(VENV)/.installed
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[mace]'
	@touch $@

run: setup ## tune, evaluate and report on the built-in data; again: 20 more trials
	$(ACTIVE) mlflow run . --env-manager local -P study=$(STUDY)
	$(ACTIVE) mlflow run . --env-manager local -e evaluate -P study=$(STUDY) -P reopen="make run once more"
	$(ACTIVE) mlflow run . --env-manager local -e report -P study=$(STUDY)
	@echo
	@echo "Next: the runs and their curves    $(VENV)/bin/mlflow ui"
	@echo "      in the browser               http://127.0.0.1:5000/#/experiments/0/runs?workflowType=machine_learning"
	@echo "      the report                   reports/$(STUDY)/report.html"

report: setup ## the report of a study: make report STUDY=...
	$(ACTIVE) bdqm-tune report $(STUDY)

test: setup ## the tests but those of endurance; others by PYTEST_ARGS='-k gmp'; WORKERS=4 at once
	$(ACTIVE) $(if $(TESTS_IN),TMPDIR="$(TESTS_IN)") python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder --durations 25 $(PYTEST_ARGS)
	@[ -n "$$CI" ] || echo "Next: 'make endurance' adds what is slow by nature, 'make lint' checks style and types, 'make run' tunes a model."

endurance: ## the tests that are slow by nature: loads, long faults, environments, jobs of many minutes
	$(MAKE) test WORKERS=2 PYTEST_ARGS='-m "endurance or soak"'

lint: $(VENV)/.installed ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

tutorial: setup ## run docs/tutorial.ipynb and make its page anew; TUTORIAL_ARGS=--page only makes the page
	$(ACTIVE) PYTHONPATH="$(CURDIR)" python scripts/tutorial.py $(TUTORIAL_ARGS)

security: $(VENV)/.installed ## bandit on the code, and known vulnerabilities of the dependencies
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive bdqm_tune mlflow_server analysis scripts
	$(BIN)/python scripts/audit.py

clean: ## remove the environment and caches; studies, runs and figures stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find bdqm_tune analysis tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
