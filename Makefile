# Two commands on a fresh machine: `make demo` and `make test`. Everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CLIENTS := $(VENV)/clients

.PHONY: setup demo pretrained test test-all clients lanes lane-core lane-tensorflow lane-pytorch lane-both mutants check lint types imports clean

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
PYTEST := OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test: $(STAMP)
	$(PYTEST)

test-all: $(STAMP)
	$(PYTEST) -m "not client" --hypothesis-profile full

# The applications of existing users, installed as they are, with this package behind them.
# They stand in a folder of their own: what they bring along loads itself into every Python that finds it.
clients: $(CLIENTS)
	PYTHONPATH=$(CLIENTS) $(PYTEST) -m client tests/clients

$(CLIENTS): $(STAMP) tests/clients/requirements.txt
	$(BIN)/python -m pip install --quiet --upgrade --target $@ --no-deps -r tests/clients/requirements.txt
	touch $@

# One lane for each set of frameworks that a user may have; what a lane lacks cannot be imported, in children neither.
TORCH := torch lightning pytorch_lightning
TENSORFLOW := tensorflow keras
LANE := PYTHONPATH=tests/lanes $(PYTEST) -q --hypothesis-profile lane tests/lanes

lanes: lane-core lane-tensorflow lane-pytorch lane-both

NEUTRAL := $(wildcard tests/test_*.py) $(addprefix tests/,commands data engines model_file network physics plots pretraining quality runtime simulation solver testing training)

lane-core: $(STAMP)
	LANE_WITHOUT="$(TORCH) $(TENSORFLOW)" $(LANE) $(NEUTRAL) tests/architecture/test_imports.py

lane-tensorflow: $(STAMP)
	LANE_WITHOUT="$(TORCH)" $(LANE) tests/ptycho tests/parity tests/commands/test_parity.py --backend tensorflow

lane-pytorch: $(STAMP)
	LANE_WITHOUT="$(TENSORFLOW)" $(LANE) tests/ptycho_torch tests/parity tests/commands/test_parity.py --backend pytorch

lane-both: $(STAMP)
	$(LANE) tests/architecture/test_imports.py tests/parity/test_cross_engine.py

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

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
