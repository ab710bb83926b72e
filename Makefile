# Everything works in .venv at the project's root and is safe to repeat.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check test-extras clean
BIN := .venv/bin

help:            ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

setup:           ## system packages (if root), .venv, weights of the embedded engines
	@bash infra/setup.sh

demo: setup      ## dub both example episodes from English into Spanish and French
	@$(BIN)/infinidub run examples/harbor-lights/catalog.yaml --out dubbed

test: setup      ## the whole suite
	@$(BIN)/pytest

check: setup     ## style, types, import rules
	@$(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports --no-cache

test-extras: setup  ## whisperx and coqui-tts in an environment of their own
	@bash infra/extras/test.sh

clean:           ## remove environments and the demo's output
	rm -rf .venv .venv-extras dubbed
