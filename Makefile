# Every verb sets up what it needs; nothing has to be installed first but python3 (3.11 or newer) and make.
#   ARGS=…    handed on:            make serve ARGS='--listen 127.0.0.1:1081'    make test ARGS='-k socks4 -x'
#   PYTHON=…  the interpreter:      make setup PYTHON=/usr/bin/python3.12

.DEFAULT_GOAL := help
.PHONY: help setup serve test cover peers bench bench-peers lint types clean
export PYTHON
BIN := .venv/bin

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

setup: ## prepare .venv: tabi (editable), and what tests and checks need
	@tools/setup.sh dev

serve: ## run the server on 127.0.0.1:1080 and [::1]:1080
	@tools/setup.sh serve
	@exec $(BIN)/tabi serve $(ARGS)

test: ## run the whole suite
	@tools/setup.sh dev
	@$(BIN)/python -m pytest $(ARGS)

cover: ## branches of the blind core that its own tests do not take; fails if there are any
	@tools/setup.sh dev
	@$(BIN)/coverage run -m pytest -q tests/unit/test_addr.py tests/unit/wire tests/unit/machine tests/unit/dial \
		tests/unit/policy -m 'not hypothesis' $(ARGS)
	@$(BIN)/coverage report

peers: ## install a C compiler and the programs of others that interop tests drive (root or sudo)
	@tools/peers.sh

bench: ## measure tabi beside other proxies; ARGS=--help tells how to measure a part
	@tools/setup.sh dev
	@PYTHONPATH=tests $(BIN)/python -m bench.run $(ARGS)

bench-peers: ## install the proxies that `make bench` measures beside tabi (root or sudo)
	@tools/peers.sh bench

lint: ## ruff, and the walls between the layers
	@tools/setup.sh dev
	@$(BIN)/ruff check $(ARGS)
	@$(BIN)/lint-imports --no-logo

types: ## mypy --strict
	@tools/setup.sh dev
	@$(BIN)/mypy $(ARGS)

clean: ## take away all that the verbs above made in this directory
	rm -rf .venv .nox .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	rm -rf build dist tests/interop/node/node_modules src/tabi/relay/*.so
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
