.DEFAULT_GOAL := help
.PHONY: help demo demo-down test check test-pure fuzz bench fix clean

bin := .venv/bin
pure := model clones builds spec document envfile interpolation words render fields state plan errors output fingerprint saved lock apply authority trust certificates seal
comma := ,
empty :=
pure_files := $(subst $(empty) $(empty),$(comma),$(pure:%=dual_iac/%.py))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## bring up the workspaces of dual.yaml and show their addresses
	@scripts/setup.sh demo
	$(bin)/dual apply -y >/dev/null
	@echo
	@$(bin)/dual url
	@echo
	@echo "Open them in a browser, or, where names under .localhost don't resolve:"
	@$(bin)/dual url | grep -Eo 'http://[a-z0-9.-]+(:[0-9]+)?' | head -n 1 | \
		sed -E 's|http://([^:]+)(:[0-9]+)?|  curl -H "Host: \1" http://127.0.0.1\2/|'

demo-down: ## take the demo down again (volumes stay)
	$(bin)/dual destroy -y

test: ## everything: checks, then all tests on a real engine, with coverage
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory check
	$(bin)/pytest -q -n 2 --dist loadfile --cov=dual_iac --cov-report=
	$(bin)/coverage report --include='$(pure_files)' --fail-under=95

check: ## format, lint, types and import contracts only
	@scripts/setup.sh python
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy
	$(bin)/lint-imports

test-pure: ## the tests that need no engine
	@scripts/setup.sh python
	$(bin)/pytest -q -m 'not engine'

fuzz: ## 20,000 hostile inputs, then real Compose and Traefik (COUNT=20000, SEED=1)
	@scripts/setup.sh test
	$(bin)/python -m tests.fuzz --count $(or $(COUNT),20000) --seed $(or $(SEED),1) --external

bench: ## measure beside Docker Compose, into docs/benchmarks.md (ONLY="running ...", ROUNDS=3)
	@scripts/setup.sh bench
	$(bin)/python -m bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(ONLY)

fix: ## format, and mend what the linter can
	@scripts/setup.sh python
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

clean: ## remove caches and build products (.venv stays)
	rm -rf dist build .coverage .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
