# Everything works in .venv at the project's root and is safe to repeat.
.DEFAULT_GOAL := help
.PHONY: help setup demo pool-demo test check test-extras chaos load bench clean
BIN := .venv/bin

help:            ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup:           ## system packages (if root), .venv, weights of the embedded engines
	@bash infra/setup.sh

demo: setup      ## dub both example episodes from English into Spanish and French, lips too where the small weights are
	@$(BIN)/infinidub run examples/harbor-lights/catalog.yaml --out dubbed
	@$(BIN)/python infra/bench/demo.py dubbed

pool-demo: setup ## the same on a GPU pool of real processes on this machine: Prefect's server and workers, PostgreSQL, S3
	@$(BIN)/python -m infra.bench.pool dubbed

# A file stays whole, for its servers are started once; by name, for by number of tests the longest would come last.
test: setup      ## the whole suite, in two processes
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

check: setup     ## style, types, import rules
	@$(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

test-extras: setup  ## whisperx and coqui-tts in an environment of their own
	@bash infra/extras/test.sh

chaos: setup     ## a GPU pool of real processes under all 50 seeded schedules of kills (an hour)
	@$(BIN)/pytest -m chaos tests/test_chaos.py

load: setup      ## 200 shards dispatched to real processes, and what each costs (half an hour)
	@$(BIN)/pytest -m load -s tests/test_load.py

bench: setup     ## memory against length, and wall time under Prefect against plain calls (10 minutes)
	@$(BIN)/python infra/bench/memory.py && $(BIN)/python infra/bench/prefect_overhead.py

clean:           ## remove environments and the demo's output
	rm -rf .venv .venv-extras dubbed
