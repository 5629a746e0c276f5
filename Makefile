# Needs make and Python 3.11 or newer; everything else is installed into .venv by the targets that need it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The CPU build is named first: a bare `torch` may bring gigabytes of CUDA.
TORCH := torch==2.13.0
# The oldest supported generator: generated code refuses an older runtime, not a newer one.
PROTOC := grpcio-tools==1.80.0 mypy-protobuf==3.7.0
SERVICES := $(wildcard protos/rowmint/v1/*_service.proto)

.PHONY: demo test lint protos bench clean
.DELETE_ON_ERROR:

.make/demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH) -e '.[demo]'
	@mkdir -p .make && touch $@

.make/dev: .make/demo
	$(BIN)/python -m pip install --quiet $(TORCH) -e '.[dev]'
	@touch $@

.make/protoc: Makefile
	$(PYTHON) -m venv .venv-protoc
	.venv-protoc/bin/python -m pip install --quiet $(PROTOC)
	@mkdir -p .make && touch $@

# What the sampler runs on, alone: a test starts it from here.
.make/sampler: pyproject.toml
	$(PYTHON) -m venv .venv-sampler
	.venv-sampler/bin/python -m pip install --quiet --upgrade pip
	.venv-sampler/bin/python -m pip install --quiet -e '.[sampler]'
	@mkdir -p .make && touch $@

demo: .make/demo
	$(BIN)/rowmint demo

protos: .make/protoc
	rm -f shared/rowmint/v1/*_pb2*.py shared/rowmint/v1/*_pb2*.pyi
	PATH="$(CURDIR)/.venv-protoc/bin:$$PATH" python -m grpc_tools.protoc -Iprotos \
	  --python_out=shared --mypy_out=quiet:shared protos/rowmint/v1/*.proto
	PATH="$(CURDIR)/.venv-protoc/bin:$$PATH" python -m grpc_tools.protoc -Iprotos \
	  --grpc_python_out=shared --mypy_grpc_out=quiet:shared $(SERVICES)

lint: .make/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint protos

test: lint .make/protoc .make/sampler
	$(BIN)/pytest

bench: .make/dev
	$(BIN)/pytest tests/benchmarks -m benchmark -s

clean:
	rm -rf $(VENV) .venv-protoc .venv-sampler .make
