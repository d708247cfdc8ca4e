# Two commands on a fresh machine: `make demo` and `make test`. Everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CLIENTS := $(VENV)/clients

.PHONY: setup demo docs gallery pretrained test test-slow test-all soak clients lanes lane-core lane-tensorflow lane-pytorch mutants check lint types imports clean

setup: $(STAMP)

# torch first and by itself: a CPU build that satisfies the pin is kept by everything that follows.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade setuptools wheel -c constraints.txt
	$(BIN)/python -m pip install --quiet "torch==$$(sed -n 's/^torch==//p' constraints.txt)" -c constraints.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation -c constraints.txt -e ".[all,dev]"
	touch $@

demo: $(STAMP)
	$(BIN)/python benchmarks/demo.py

# The network that ships with the package, from nothing; stopped and called again, it goes on.
PRETRAINED := ptycho_backend/network/pretrained
pretrained: $(STAMP)
	$(BIN)/python -m ptycho_torch.engine.pretraining $(PRETRAINED)/config.yaml --folder runs/pretrained --output $(PRETRAINED)/wts.h5.zip

# Two test processes of one thread each: threads of two frameworks in one process mostly wait for each other.
PYTEST := OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --durations=30

test: $(STAMP)
	$(PYTEST)

# What takes long: processes, resuming, loggers, large windows, pages that are run step by step.
test-slow: $(STAMP)
	$(PYTEST) -m "slow and not client"

# Everything, with many more examples.
test-all: $(STAMP)
	$(PYTEST) -m "not client" --hypothesis-profile full

# Trainings, kills, resumes and reconstructions in a loop, with counts at the end (docs/reliability.md).
soak: $(STAMP)
	$(BIN)/python benchmarks/soak.py --rounds 20 --minutes 20

# The applications of existing users, installed as they are, with this package behind them.
# They stand in a folder of their own: what they bring along loads itself into every Python that finds it.
clients: $(CLIENTS)
	PYTHONPATH=$(CLIENTS) $(PYTEST) -m client tests/clients

$(CLIENTS): $(STAMP) tests/clients/requirements.txt
	$(BIN)/python -m pip install --quiet --upgrade --target $@ --no-deps -r tests/clients/requirements.txt
	touch $@

# One lane for each set of frameworks that a user may have; what a lane lacks cannot be imported, in children neither.
# The equations have been compared by then: a lane shows that the package works with what is there.
TORCH := torch lightning pytorch_lightning
TENSORFLOW := tensorflow keras
LANE := PYTHONPATH=tests/lanes $(PYTEST) -q --hypothesis-profile lane tests/lanes tests/architecture/test_imports.py

lanes: lane-core lane-tensorflow lane-pytorch

lane-core: $(STAMP)
	LANE_WITHOUT="$(TORCH) $(TENSORFLOW)" $(LANE) tests/commands

lane-tensorflow: $(STAMP)
	LANE_WITHOUT="$(TORCH)" $(LANE) tests/ptycho --backend tensorflow

lane-pytorch: $(STAMP)
	LANE_WITHOUT="$(TENSORFLOW)" $(LANE) tests/ptycho_torch --backend pytorch

# Breaks a copy of the code in one place after the other and shows that the tests notice each time.
mutants: $(STAMP)
	$(BIN)/python tests/mutants/run.py

check: lint types imports

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports --no-cache

# The site in build/site; a broken link or an unknown name ends it. Quiet builds count no warnings.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# The notebooks of the gallery, executed, with their pictures.
gallery: $(STAMP)
	$(BIN)/python docs/gallery/execute.py

clean:
	rm -rf $(VENV) build demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
