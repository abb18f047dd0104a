# The commands that never change their name. `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: help demo test check bench soak dev deploy destroy package lock clean
.SHELLFLAGS := -eu -c

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LOCKS := dev/requirements/stack.txt dev/requirements/emulator.txt
PIP := -qq --disable-pip-version-check --require-hashes --no-deps

help: ## List the commands
	@grep -E '^[a-z]+:.*##' Makefile | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

# The locks and the interpreter make the environment. pyproject.toml does not: the checkout is installed editable.
$(READY): $(LOCKS) .ci/python
	@echo "Installing into $(VENV) (once; about a minute) ..."
	@rm -rf $(VENV)
	@$$(sh .ci/python) -m venv $(VENV)
	@$(BIN)/python -m venv $(VENV)/emulator
	@$(BIN)/pip install $(PIP) -r dev/requirements/stack.txt
	@$(VENV)/emulator/bin/pip install $(PIP) -r dev/requirements/emulator.txt
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps -e .
	@touch $(READY)

demo: $(READY) ## The main job on real servers; INTERACTIVE=1 lets you click the cards
	@$(BIN)/python -m dev.demo $(if $(INTERACTIVE),--interactive)

test: $(READY) ## All tests
	@$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not soak"

check: $(READY) ## Format, lint, types, import rules, docs
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff check --config .ci/app-imports.toml app.py
	@$(BIN)/python -m mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python .ci/docs.py

bench: $(READY) ## Measure against peers; ONLY=postgres for one part
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY))

soak: $(READY) ## What is too slow for `make test`
	@$(BIN)/python -m pytest -m soak --timeout 3600

dev: $(READY) ## The local stack, until Ctrl-C
	@$(BIN)/countersign dev

deploy: $(READY) ## Deploy to AWS: STAGE=prod; CONFIG=folder of the bundle; YES=1 agrees beforehand
	@$(BIN)/python -m infra.deploy deploy "$(STAGE)" $(if $(CONFIG),--config "$(CONFIG)") $(if $(YES),--yes) $(DEPLOY)

destroy: $(READY) ## Take a stage down: STAGE=prod; refuses while evidence is there
	@$(BIN)/python -m infra.deploy destroy "$(STAGE)" $(if $(YES),--yes)

package: $(READY) ## The SAM template and zip for a pipeline: STAGE=prod OUT=folder
	@$(BIN)/python -m infra.deploy package "$(STAGE)" $(if $(REGION),--region "$(REGION)") $(if $(OUT),--out "$(OUT)")

lock: ## Resolve and hash every requirements file (needs uv)
	@for part in requirements broker/requirements countersign/requirements dev/requirements/stack dev/requirements/emulator; do \
		version=3.11; test $$part != requirements || version=3.12; \
		uv pip compile -q --universal --python-version $$version --generate-hashes --no-emit-index-url --no-annotate \
			--custom-compile-command 'make lock' $$part.in -o $$part.txt; done

clean: ## Remove what the commands above made
	@rm -rf $(VENV) .cache bench/out .mypy_cache .ruff_cache .hypothesis
