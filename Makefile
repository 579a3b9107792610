# foretrain: make demo | test | lint | bench | clean. Needs Python 3.11 or newer and a package index; everything goes into .venv.

VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
VISION ?= torchvision==0.28.0 timm==1.0.31
OUT ?= out
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The first interpreter that runs, is new enough and can make a virtual environment; `make PYTHON=/path/to/python demo` overrides it.
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	"$$name" -c '$(USABLE)' 2>/dev/null && { command -v "$$name"; break; }; done)

.PHONY: demo test lint bench reports clean always
.DELETE_ON_ERROR:

demo: $(VENV)/installed  ## GPT-3 175B on 1,024 A100s: the table, and out/ with report, timeline and picture
	$(BIN)/foretrain simulate --model gpt3-175b --cluster dgx-a100-80gb:128 --software megatron-lm-2021 \
		--tp 8 --pp 8 --vpp 3 --global-batch 1536 --seq-len 2048 --precision fp16 --recompute full --out $(OUT)

test: $(VENV)/testable  ## the whole suite; `make test ARGS='tests/sim -x'` for a part
	$(BIN)/python -m pytest --numprocesses auto $(ARGS)

lint: $(VENV)/testable
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/installed  ## speed of the simulator itself
	@$(BIN)/python -m compileall -q foretrain
	@$(BIN)/python benchmarks/bench.py

# Errors against every table of measurements that comes with the package, one report a table: what it prints, as data, and as a picture.
MEASURED := $(wildcard foretrain/validate/data/*.csv)
reports: $(MEASURED:foretrain/validate/data/%.csv=reports/published-%.md)  ## held against all published measurements, in reports/

reports/published-%.md: foretrain/validate/data/%.csv $(VENV)/testable always
	@mkdir -p $(OUT)/reports/$* reports
	$(BIN)/foretrain validate published $< --out $(OUT)/reports/$* > $(OUT)/reports/$*/summary.txt
	{ echo "# Predictions beside $*.csv"; echo; echo "Written by \`make reports\` on $$(date +%F), $$($(BIN)/foretrain --version); not edited by hand."; \
		echo; echo '```text'; sed '/^written to/d' $(OUT)/reports/$*/summary.txt; echo '```'; } > $@
	cp $(OUT)/reports/$*/summary.json reports/published-$*.json
	cp $(OUT)/reports/$*/errors.png reports/published-$*.png

clean:
	rm -rf $(VENV) $(OUT) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: what is installed is installed again only where pyproject.toml changed.
$(BIN)/python:
	@"$(PYTHON)" -c '$(USABLE)' 2>/dev/null || { \
		echo "foretrain needs Python 3.11 or newer with venv (Debian: python3-venv); none found$(if $(PYTHON), in $(PYTHON))." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python demo" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(PIP) --editable .
	$(BIN)/python -m compileall -q foretrain
	@touch $@

# torch is the oracle of the schedules and models in the tests, and torchvision and timm that of the convolutional networks and what is
# traced; they are no dependencies of the package, hence calls of their own. torchvision's operators are not needed, so its build need not
# match torch's, and without its dependencies no second torch comes in.
$(VENV)/testable: $(VENV)/installed
	$(PIP) "$(TORCH)" huggingface_hub safetensors pillow
	$(PIP) --no-deps $(VISION)
	$(PIP) --editable ".[test]"
	@touch $@
