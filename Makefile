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
PROTOC := grpcio-tools==1.80.0 mypy-protobuf==3.7.0 googleapis-common-protos==1.70.0
# A real S3 service for the tests, alone: its servers run from here.
SWIFT := swift==2.38.3
# What tells what is installed, and what is known to be wrong with it.
AUDIT_READY := .venv-audit/.ready
AUDIT := cyclonedx-bom==7.5.0 pip-audit==2.10.1
# Of Debian's packages `make test-debian` installs these, and only unpacks those: prometheus would start a server.
DEBIAN_INSTALLED := g++ pkg-config libgrpc++-dev libssl-dev protobuf-compiler protobuf-compiler-grpc \
  protobuf-compiler-grpc-java-plugin protoc-gen-go protoc-gen-go-grpc
DEBIAN_UNPACKED := prometheus
TOOLS := $(CURDIR)/.debian-tools
MACHINE := $(shell uname -m)-linux-gnu
# Two processes, each with whole files of tests: most of these wait for services, and two cores are enough for both.
SIDE_BY_SIDE := -n 2 --dist loadfile
SERVICES := $(wildcard protos/rowmint/v1/*_service.proto)
GENERATE := PATH="$(CURDIR)/.venv-protoc/bin:$$PATH" python -m grpc_tools.protoc -Iprotos -I.venv-protoc/googleapis

.PHONY: demo test audit test-crash test-debian soak soak-quick lint docs protos bench bench-serving bench-quick clean
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
	@# What the protos import of google/api, at a path without a version of Python in it.
	ln -sfn "$$(.venv-protoc/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
	  .venv-protoc/googleapis
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

$(AUDIT_READY): Makefile
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --upgrade pip
	.venv-audit/bin/python -m pip install --quiet $(AUDIT)
	@touch $@

demo: $(DEMO)
	$(BIN)/rowmint demo

# Stubs, and the descriptors by which Envoy turns JSON into messages and back, those of errors included.
protos: $(PROTOC_READY)
	rm -f shared/rowmint/v1/*_pb2*.py shared/rowmint/v1/*_pb2*.pyi
	$(GENERATE) --python_out=shared --mypy_out=quiet:shared protos/rowmint/v1/*.proto
	$(GENERATE) --grpc_python_out=shared --mypy_grpc_out=quiet:shared $(SERVICES)
	$(GENERATE) --include_imports --descriptor_set_out=deploy/rowmint.binpb $(SERVICES) google/rpc/error_details.proto

# The pages of docs/ that are generated: settings, errors, tests that hold promises.
docs: $(DEV)
	$(BIN)/python -m tests.docs

lint: $(DEV) $(PROTOC_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint protos

# All that tests start shares the processors: BLAS threads that spin would only take these from each other. And code is
# compiled once, not by each of hundreds of processes.
test test-crash test-debian soak soak-quick: export OPENBLAS_NUM_THREADS := 1
test test-crash test-debian soak soak-quick: export PYTHONDONTWRITEBYTECODE :=

test: lint $(PROTOC_READY) $(SAMPLER_READY) $(SWIFT_READY)
	$(BIN)/pytest $(SIDE_BY_SIDE)

# Bills of materials (CycloneDX) of what is installed, their licences, and known weaknesses where somebody can be asked.
audit: $(DEV) $(SAMPLER_READY) $(AUDIT_READY)
	$(BIN)/python -m tests.supply .venv-audit/bin sampler=.venv-sampler development=$(VENV)

# Every place where a process may die, at several of its passings, on both back ends (two stories at a time); full disks,
# wrong clocks, and registries and stores that go away: twenty minutes.
test-crash: $(DEV) $(SWIFT_READY)
	$(BIN)/pytest tests/crash -m crash
	$(BIN)/pytest tests/faults -m crash $(SIDE_BY_SIDE)

# What needs Debian packages: a client in C++, code made for Go and Java, the alerts judged by promtool. Not root: they
# are unpacked below .debian-tools.
test-debian: $(DEV) $(PROTOC_READY)
	tests/debian_tools.sh $(TOOLS) $(DEBIAN_INSTALLED) -- $(DEBIAN_UNPACKED)
	PATH="$$PATH:$(TOOLS)/usr/bin" CPATH="$(TOOLS)/usr/include" LIBRARY_PATH="$(TOOLS)/usr/lib/$(MACHINE)" \
	  LD_LIBRARY_PATH="$(TOOLS)/usr/lib/$(MACHINE)" PKG_CONFIG_PATH="$(TOOLS)/usr/lib/$(MACHINE)/pkgconfig" \
	  $(BIN)/pytest -m debian

# A mixed load while everything is killed at random: half an hour, and two minutes. On PostgreSQL and Swift:
# `make .venv-swift/.ready`, then `make soak SOAK=--postgres`. SOAK takes --seed and --minutes, too.
soak: $(DEV)
	$(BIN)/python -m tests.soak $(SOAK)

soak-quick: $(DEV)
	$(BIN)/python -m tests.soak --minutes 2 $(SOAK)

# The first and the last need ROWMINT_BENCH_DATA: a folder with adult_train.csv and adult_test.csv (UCI Adult).
bench: $(DEV)
	$(BIN)/pytest tests/benchmarks -m benchmark -s
	$(BIN)/python -m tests.benchmarks.engine

bench-serving: $(DEV)
	$(BIN)/python -m tests.benchmarks.serving

bench-quick: $(DEV)
	$(BIN)/python -m tests.benchmarks.engine --quick

clean:
	rm -rf $(VENV) .venv-audit .venv-protoc .venv-sampler .venv-swift .debian-tools build
