# `make demo` shows the main job, `make test` proves everything; both set up what they need. See CONTRIBUTING.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export UV_PROJECT_ENVIRONMENT := $(VENV)
# Where it is set, each command line and worker would compile everything anew: seconds of each start.
unexport PYTHONDONTWRITEBYTECODE
# Most tests wait more than they compute: more processes than cores.
PROCESSES ?= 4
PYTEST_SIDE_BY_SIDE := $(BIN)/pytest -n $(PROCESSES) --no-loadscope-reorder

.PHONY: help setup demo test soak times servers lint unit format bench mutants histories keep rights crd version release audit clean

help: ## what each command does
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/.done ## make .venv, with everything in it

$(VENV)/.done: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit("Segue needs Python 3.11 or newer, not " + sys.version.split()[0] + "; run: make setup PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV); }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -oE 'uv>=[0-9.]+' pyproject.toml)"
	$(BIN)/uv sync --locked --quiet
	@touch $@

demo: setup ## a rollout, and a bad version that comes back by itself, on real servers on this machine
	$(BIN)/python examples/demo.py

test: lint servers ## everything: lint, types, import rules, unit, workflow, replay, cluster and traffic tests
	$(PYTEST_SIDE_BY_SIDE) || $(BIN)/python tests/support/again.py

# SEED=n repeats one day of random faults; WEATHER='--minutes 60 --jobs 2' plays new ones. Each leaves the campaigns out.
soak: servers ## long campaigns, then random faults on real servers; only these: SEED=7 or WEATHER='--minutes 60'
	$(if $(SEED)$(WEATHER),,$(BIN)/segue local build --postgres && $(PYTEST_SIDE_BY_SIDE) -m soak)
	PYTHONPATH=tests/support $(BIN)/python -m weather $(if $(SEED),--seed $(SEED)) $(WEATHER)

times: setup ## write into docs/testing.md where the time of the last `make test` went
	$(BIN)/python tests/support/times.py

servers: setup ## build the servers that tests run on (minutes, once)
	$(BIN)/segue local build --all

lint: setup ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: setup ## only the tests that need no server
	$(BIN)/pytest tests/unit tests/cli tests/replay

format: setup ## mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## how fast, against the plain Deployment controller on the same servers in one run
	$(BIN)/python bench/run.py
	$(BIN)/python bench/traffic.py
	$(BIN)/python bench/judging.py
	$(BIN)/python bench/scale.py

mutants: setup ## change core and workflow in small ways, and list what no fast test notices (MUTANTS="60 --seed 7 --only segue/status.py")
	$(BIN)/python tests/mutants.py $(MUTANTS)

histories: setup ## record tests/replay/histories anew; do it only for a deliberate change of the workflow
	$(BIN)/python tests/replay/record.py

keep: setup ## store specs and histories of this version: each later release must read and replay them
	$(BIN)/python tests/replay/record.py keep

rights: setup ## write deploy/rbac*.yaml from the list in segue/rights.py
	$(BIN)/segue rights base > deploy/rbac.yaml
	for role in serving gates room controller profiles; do $(BIN)/segue rights $$role > deploy/rbac-$$role.yaml || exit 1; done

crd: setup ## write deploy/crd from the spec's models
	for name in rollouts rolloutprofiles clusterrolloutprofiles; do $(BIN)/segue crd $$name > deploy/crd/$$name.segue.dev.yaml || exit 1; done

version: setup ## set the version everywhere (VERSION=0.2.0), or write that of pyproject.toml to all other places
	$(BIN)/python -m segue_local.release stamp $(VERSION)

release: setup ## wheel, chart, image, bill of materials, licences and checksums of a tagged commit, in dist/ (SOURCE=https://…)
	$(BIN)/python -m segue_local.release make dist/$(shell $(BIN)/segue version | cut -d' ' -f2) --source "$(SOURCE)"

audit: setup ## known vulnerabilities of the locked packages (asks a public database)
	$(BIN)/uv audit --locked

clean: ## remove what setup made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
