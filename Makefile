# make demo   sets everything up, boots a real machine and shows how
# make test   sets everything up and runs every check and test

.PHONY: demo test setup check format lock soak bench clean
BENCHES := imports overhead throughput api ec2 footprint boot firewall disks

demo: setup
	@scripts/demo

test: check
	@scripts/test

setup:
	@scripts/setup

check: setup
	@.venv/bin/ruff check -q
	@.venv/bin/ruff format -q --check
	@.venv/bin/mypy --no-error-summary
	@.venv/bin/lint-imports --no-logo | tail -n 1

format:
	@.venv/bin/ruff check -q --fix --exit-zero
	@.venv/bin/ruff format

# The exact versions that setup installs.
lock:
	@.venv/bin/pip freeze --exclude-editable > requirements.lock

# SCHEDULES mixtures of everything that can befall a launch, in virtual time, other ones each time; `make test` runs a
# fixed five thousand. Many can be split: `SEED=1 SCHEDULES=25000`, `SEED=25001 SCHEDULES=25000` …
SCHEDULES ?= 10000
SEED ?= $(shell date +%s)
WORKERS ?= $(shell nproc)
soak: setup
	@.venv/bin/python -m tests.simulation.run --soak $(SCHEDULES) --seed $(SEED) --workers $(WORKERS)

bench: $(BENCHES:%=bench-%)

bench-%: setup
	@.venv/bin/python -m bench.$*

clean:
	rm -rf .venv .cache dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
