# The commands of this repository; `make` alone lists them.
#
# Each environment file below is a stamp: pip runs only when the pins or pyproject.toml are newer, and the compiler only
# when a source is. After the installation no network is needed.

PYTHON ?= python3
VENV ?= .venv
# Another torch from 2.10 on, or another index: make demo TORCH="torch --index-url https://..."
TORCH ?= torch==2.13.0
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu

DEMO_SCENE ?= scenes/still_life
DEMO_OUTPUT ?= output/demo
DEMO_RESOLUTION ?= 480
DEMO_ITERATIONS ?= 5000
DEMO_SPLATS ?= 50000
DEMO_PATH ?= interpolate
DEMO_FRAMES ?= 90
PYTEST_ARGS ?=
# One process per core, at most eight, with one thread each.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n auto --maxprocesses 8 --dist worksteal
BENCH_ARGS ?=

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install
CSRC := $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
EMULATION := $(shell find tools/emulation -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo build test test-isas lint bench emulation clean distclean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.built ## train the bundled scene, measure it on held-out views, render a video
	$(PY) train.py $(DEMO_SCENE) -m $(DEMO_OUTPUT) -r $(DEMO_RESOLUTION) --iterations $(DEMO_ITERATIONS) --max-splats $(DEMO_SPLATS) --overwrite
	$(PY) render.py $(DEMO_OUTPUT) --path $(DEMO_PATH) --frames $(DEMO_FRAMES)
	@$(PY) -c "import json; r = json.load(open('$(DEMO_OUTPUT)/results.json')); \
	  print('\n%d %s views: PSNR %.2f dB, SSIM %.4f; %d splats, trained for %.0f s. Look at' % \
	  (r['views'][r['split']], r['split'], r['psnr'], r['ssim'], r['splats'], r['seconds']))"
	@ls $(DEMO_OUTPUT)/overview.png $(DEMO_OUTPUT)/paths/*_$(DEMO_ITERATIONS).mp4 $(DEMO_OUTPUT)/point_cloud/*/*.ply | sed 's/^/  /'

build: $(VENV)/.built ## install what is pinned and compile the kernels, in .venv

test: $(VENV)/.test $(VENV)/.built ## run all tests
	$(PYTEST) $(PYTEST_ARGS)

# These depend on no instruction set of the CPU: compilers, archives, and the emulated GPU.
NO_ISA := --ignore=tests/cuda --ignore=tests/project/test_packaging.py
NARROWER = $(PYTEST) -q $(NO_ISA) -k "not cuda- and not emulat and not ptx" $(PYTEST_ARGS)

test-isas: $(VENV)/.test $(VENV)/.built ## run the tests of numerical results as on processors with fewer instructions
	SPLATRENDER_ISA=avx2 ATEN_CPU_CAPABILITY=avx2 $(NARROWER)
	SPLATRENDER_ISA=portable ATEN_CPU_CAPABILITY=default $(NARROWER)

LINTS := lint-style lint-types lint-layers lint-words lint-cpp
.PHONY: $(LINTS)

lint: $(LINTS) ## check style, types, layers and spelling, and the format of the C++

lint-style: $(VENV)/.lint
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

lint-types: $(VENV)/.lint
	$(PY) -m mypy

lint-layers: $(VENV)/.lint
	$(VENV)/bin/lint-imports --no-cache

lint-words: $(VENV)/.lint
	$(VENV)/bin/codespell

lint-cpp: $(VENV)/.lint
	$(VENV)/bin/clang-format --dry-run -Werror $(CSRC) $(EMULATION)

bench: $(VENV)/.built ## measure the speed of the kernels
	$(PY) -m benchmarks.render.raster $(BENCH_ARGS)

emulation: $(VENV)/.test ## compile the CUDA kernels for the CPU, as the tests do when they first need them
	$(PY) -m tools.emulation.build emulated ptx

clean: ## remove what was compiled, and caches
	rm -rf build *.egg-info splatrender/_C*.so $(VENV)/.built .pytest_cache .mypy_cache .ruff_cache
	find splatrender tests benchmarks tools -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## also remove the environment and the demo's output
	rm -rf $(VENV) $(DEMO_OUTPUT)

# The CPU build of torch is a tenth of the size of PyPI's; its index is asked only if it answers.
$(VENV)/.demo: requirements/demo.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python >= 3.10 is needed, found " + sys.version) if sys.version_info < (3, 10) else 0'
	$(PYTHON) -m venv $(VENV)
	index=; if $(PY) -c 'import urllib.request as r; r.urlopen("$(TORCH_CPU_INDEX)/torch/", timeout=5)' 2>/dev/null; \
	  then index="--extra-index-url $(TORCH_CPU_INDEX)"; fi; $(PIP) $$index -c requirements/demo.txt $(TORCH)
	$(PIP) -q -r requirements/demo.txt
	@touch $@

$(VENV)/.test: requirements/test.txt $(VENV)/.demo
	$(PIP) -q -r requirements/test.txt
	@touch $@

$(VENV)/.lint: requirements/lint.txt $(VENV)/.test
	$(PIP) -q -r requirements/lint.txt
	@touch $@

$(VENV)/.built: $(VENV)/.demo setup.py $(CSRC) csrc/cuda/flags.json
	@echo "Compiling the kernels: a minute or two, and a few more for those of CUDA where nvcc is"
	$(PIP) -q --no-build-isolation --no-deps -e .
	@touch $@
