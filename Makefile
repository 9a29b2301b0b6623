# Every recipe line is one program without shell syntax: make starts it directly, so that a signal sent to make reaches it.
PYTHON ?= python3

.PHONY: help setup up test test-torch test-tf test-gateway test-sources test-monitoring test-faults test-postgres test-redis test-compose test-compose-official check bench bench-workers prove prove-drain prove-deadlines prove-faults fuzz-api prove-load soak fuzz proto clean

help:
	$(info make up      set everything up and start the stack here; Ctrl-C ends it)
	$(info make test    set everything up and run the tests, but for the suites that follow)
	$(info make test-sources   a model of every kind through docs/models.md: makes the conversion environments, half an hour)
	$(info make test-monitoring   every rule, and every query of the dashboards against a real Prometheus and a stack under load)
	$(info make test-faults     gateways killed, stopped and of several processes, short forms of the soak, of overload, of deadlines and of workers that fail, hostile input)
	$(info make test-postgres   policies and request log on a real PostgreSQL server)
	$(info make test-redis      the rates of keys on a real Redis server)
	$(info make test-compose   the Docker stack: builds the images, starts it, and checks it; needs a Docker engine)
	$(info make test-compose-official   the same with the official images of TensorFlow Serving and Grafana)
	$(info make check   formatting, lint, types, generated files)
	$(info make bench   measure each part of the way of a request)
	$(info make bench-workers   each worker against the bare loop around its artifact, and 50,000 pictures on each: makes the conversion environment; half an hour)
	$(info make prove   what the comparison says where the truth is known: a hung shadow, wrong labels, a planted delay; ten minutes)
	$(info make fuzz-api   every answer against the description of the API, with other requests each time; twenty minutes)
	$(info make prove-drain   gateways stopped under load lose no request that they accepted; half a minute)
	$(info make prove-deadlines   of workers that answer nothing: how late a deadline's answer is, how soon a hang-up ends a call; a minute and a half)
	$(info make prove-faults   what clients notice of real workers that are killed, hang, are slow or answer wrongly; ten minutes)
	$(info make prove-load    three times as many requests as can be answered, on real workers: what is answered, and how fast the rest is refused; two minutes)
	$(info make soak    half an hour of good and bad requests on a stack of its own: memory, files and tasks stay where they were)
	$(info make fuzz    mutants: 100,000 of pictures, 20,000 of requests, and five minutes of a coverage-guided fuzzer on the decoder)
	$(info make proto   compile the .proto files)
	$(info make setup   only make the environments)
	$(info make clean   remove the environments and caches; var/ with models, keys and logs stays)
	@true

setup:
	@$(PYTHON) -m tandem.bootstrap

up:
	@$(PYTHON) -m tandem.bootstrap --up
	@.venv/bin/tandem up

# All three parts run, whatever the first ones say; it fails if one does.
test: setup
	@$(MAKE) --no-print-directory --keep-going test-torch test-tf test-gateway

test-torch: setup
	.venv-torch/bin/python -m pytest tests/torch_worker

test-tf: setup
	.venv-tf/bin/python -m pytest tests/tf_worker

test-gateway: setup
	.venv/bin/python -m pytest $(foreach suite,torch_worker tf_worker sources monitoring faults hostile postgres redis compose,--ignore=tests/$(suite))

test-sources: setup
	@$(PYTHON) -m tandem.bootstrap .venv-convert .venv-ultralytics
	.venv/bin/python -m pytest tests/sources

test-monitoring: setup
	.venv/bin/python -m tests.support.prometheus
	.venv/bin/python -m pytest tests/monitoring

test-faults: setup
	.venv/bin/python -m pytest tests/faults tests/hostile

test-postgres: setup
	.venv/bin/python -m tests.support.postgres
	.venv/bin/python -m pytest tests/postgres

test-redis: setup
	.venv/bin/python -m tests.support.redis
	.venv/bin/python -m pytest tests/redis

test-compose: setup
	.venv/bin/python -m tests.support.compose
	.venv/bin/python -m pytest tests/compose

test-compose-official: setup
	.venv/bin/python -m tests.support.compose
	.venv/bin/python -m pytest tests/compose --official

check:
	@$(PYTHON) -m tandem.bootstrap .venv
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy comparison evidence gateway proto modelkit tandem tf_worker torch_worker models loadtests tests
	.venv/bin/python -m proto.compile --check

bench: setup
	.venv/bin/python -m loadtests.bench

bench-workers: setup
	@$(PYTHON) -m tandem.bootstrap .venv-convert
	.venv/bin/python -m loadtests.bench_workers

prove: setup
	.venv/bin/python -m loadtests.prove_shadow
	.venv/bin/python -m loadtests.prove_labels
	.venv/bin/python -m loadtests.prove_live

fuzz-api: setup
	.venv/bin/python -m tests.hostile.schema

prove-drain: setup
	.venv/bin/python -m loadtests.prove_drain

prove-deadlines: setup
	.venv/bin/python -m loadtests.prove_deadlines

prove-faults: setup
	.venv/bin/python -m loadtests.prove_faults

prove-load: setup
	.venv/bin/python -m loadtests.prove_overload

soak: setup
	.venv/bin/python -m loadtests.soak

fuzz: setup
	.venv/bin/python -m pip install --quiet -c constraints.txt --group fuzz
	.venv/bin/python -m tests.hostile.fuzz
	.venv/bin/python -m tests.hostile.fuzz --target requests --mutations 20000
	.venv/bin/python -m tests.hostile.guided

proto:
	@$(PYTHON) -m tandem.bootstrap .venv
	.venv/bin/python -m proto.compile

clean:
	rm -rf .venv .venv-torch .venv-tf .venv-convert .venv-ultralytics build dist tandem_serving.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
