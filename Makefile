# Needs make and Python 3.11 or newer; everything else is installed into .venv by the targets that need it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A stamp lies in the environment it stands for, and goes with it.
DEMO := $(VENV)/.demo
DEV := $(VENV)/.dev
PROTOC_READY := .venv-protoc/.ready
SAMPLER_READY := .venv-sampler/.ready
SWIFT_READY := .venv-swift/.ready
# The CPU build is named first: a bare `torch` may bring gigabytes of CUDA.
TORCH := torch==2.13.0
# The oldest supported generator: generated code refuses an older runtime, not a newer one.
PROTOC := grpcio-tools==1.80.0 mypy-protobuf==3.7.0
# A real S3 service for the tests, alone: its servers run from here.
SWIFT := swift==2.38.3
# Two processes, each with whole files of tests: most of these wait for services, and two cores are enough for both.
SIDE_BY_SIDE := -n 2 --dist loadfile
SERVICES := $(wildcard protos/rowmint/v1/*_service.proto)

.PHONY: demo test test-crash soak soak-quick lint protos bench bench-quick clean
.DELETE_ON_ERROR:

$(DEMO): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH) -e '.[demo]'
	@touch $@

$(DEV): $(DEMO)
	$(BIN)/python -m pip install --quiet $(TORCH) -e '.[dev]'
	@touch $@

$(PROTOC_READY): Makefile
	$(PYTHON) -m venv .venv-protoc
	.venv-protoc/bin/python -m pip install --quiet $(PROTOC)
	@touch $@

# What the sampler runs on, alone: a test starts it from here.
$(SAMPLER_READY): pyproject.toml
	$(PYTHON) -m venv .venv-sampler
	.venv-sampler/bin/python -m pip install --quiet --upgrade pip
	.venv-sampler/bin/python -m pip install --quiet -e '.[sampler]'
	@touch $@

$(SWIFT_READY): Makefile
	$(PYTHON) -m venv .venv-swift
	.venv-swift/bin/python -m pip install --quiet --upgrade pip
	.venv-swift/bin/python -m pip install --quiet $(SWIFT)
	@touch $@

demo: $(DEMO)
	$(BIN)/rowmint demo

protos: $(PROTOC_READY)
	rm -f shared/rowmint/v1/*_pb2*.py shared/rowmint/v1/*_pb2*.pyi
	PATH="$(CURDIR)/.venv-protoc/bin:$$PATH" python -m grpc_tools.protoc -Iprotos \
	  --python_out=shared --mypy_out=quiet:shared protos/rowmint/v1/*.proto
	PATH="$(CURDIR)/.venv-protoc/bin:$$PATH" python -m grpc_tools.protoc -Iprotos \
	  --grpc_python_out=shared --mypy_grpc_out=quiet:shared $(SERVICES)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint protos

test: lint $(PROTOC_READY) $(SAMPLER_READY) $(SWIFT_READY)
	$(BIN)/pytest $(SIDE_BY_SIDE)

# Every place where a process may die, at several of its passings, on both back ends; full disks, wrong clocks, and
# registries and stores that go away: a quarter of an hour.
test-crash: $(DEV) $(SWIFT_READY)
	$(BIN)/pytest tests/crash tests/faults -m crash

# A mixed load while everything is killed at random: half an hour, and two minutes. On PostgreSQL and Swift:
# `make .venv-swift/.ready`, then `make soak SOAK=--postgres`. SOAK takes --seed and --minutes, too.
soak: $(DEV)
	$(BIN)/python -m tests.soak $(SOAK)

soak-quick: $(DEV)
	$(BIN)/python -m tests.soak --minutes 2 $(SOAK)

# Both need ROWMINT_BENCH_DATA: a folder with adult_train.csv and adult_test.csv (UCI Adult).
bench: $(DEV)
	$(BIN)/pytest tests/benchmarks -m benchmark -s
	$(BIN)/python -m tests.benchmarks.engine

bench-quick: $(DEV)
	$(BIN)/python -m tests.benchmarks.engine --quick

clean:
	rm -rf $(VENV) .venv-protoc .venv-sampler .venv-swift
