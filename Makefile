# make demo     run the main job, on files of this machine, with nothing else to start
# make test     everything that must pass before a change is taken
# make proof    whole what it samples: every failing step, a million rows, thousands of signals, a minute of each torture
# make burn     keep all cores and the disk busy, until Ctrl-C: to run make test beside it
# make torture  kill and freeze real processes for a minute, and say what became of every job
# make bench    measure with small numbers, next to what bounds each figure: a few minutes
# make bench-full, bench-instructions, bench-peers, bench-peers-wait, bench-report, bench-plots   the figures of bench/README.rst; see there
# make lint     ruff and mypy alone
# make clean    remove what make has made
#
# PYTHON=python3.13                        another interpreter (3.11 or newer)
# BROKER=beanstalk://127.0.0.1:11300       run the demo through a beanstalkd
# SECONDS=600 SEED=7                       how long the torture strikes, and with which choices
# WORKERS=8                                tests in so many processes at once
# MINUTES=20                               proof begins nothing after so long: at another place each day, the rest is left
# STORE=mongodb BINLOG=no                  torture on MongoDB; on a beanstalkd without a binlog
# STORE=mongodb-set                        torture on a replica set of three members

PYTHON ?= python3
BROKER ?=
SECONDS ?= 60
MINUTES ?=
# Twice as many as there are cores on a small machine: most tests wait for a server or a process.
WORKERS ?= 4
# What proves at length keeps a core busy.
PROVERS ?= 2
SEED ?=
STORE ?= sqlite
BINLOG ?= yes

VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
# A plain line in a .pth: the finder that it is by default costs each start of a Python as much as that start itself.
EDITABLE := --config-settings editable_mode=compat --editable
# Each stamp lies in the environment, so it goes when the environment goes. The first names its
# interpreter, so that another PYTHON makes the environment anew.
MADE := $(VENV)/.made-by-$(subst /,_,$(PYTHON))
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable
PLOTTABLE := $(VENV)/.plottable
PEERS := .venv-peers
COMPARABLE := $(PEERS)/.made-by-$(subst /,_,$(PYTHON))
QUESTIONS := throughput one_by_one real_work adds payloads limits kept killers pickup processes mongodb growth mixed levers

# Who sets it would compile each file anew in each of hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test proof burn torture bench bench-full bench-instructions bench-peers bench-peers-wait bench-report bench-plots lint clean servers
.DEFAULT_GOAL := demo

demo: $(INSTALLED)
	@$(VENV)/bin/kqueue demo $(if $(BROKER),--broker "$(BROKER)")

test: lint servers
	@# Before there are several that would each rewrite all asserts.
	$(VENV)/bin/python -m pytest --collect-only -q -n 0 > $(VENV)/collected || { cat $(VENV)/collected; exit 1; }
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile

proof: lint servers
	$(VENV)/bin/python -m tests.proof --workers $(PROVERS) $(if $(MINUTES),--minutes $(MINUTES))

burn: $(TESTABLE)
	$(VENV)/bin/python -m tests.burn

torture: $(TESTABLE) servers
	$(VENV)/bin/python -m tests.torture --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) --store $(STORE) \
		$(if $(filter no,$(BINLOG)),--no-binlog,--binlog)

# Few and short rounds: to see that nothing broke, not to be quoted.
bench: $(TESTABLE) servers
	$(VENV)/bin/python -m bench.throughput --rounds 3 --jobs 10000
	$(VENV)/bin/python -m bench.one_by_one --rounds 3 --jobs 1500
	$(VENV)/bin/python -m bench.adds --rounds 2 --jobs 640
	$(VENV)/bin/python -m bench.pickup --rounds 2 --jobs 150 --delayed 5 --idle 3
	$(VENV)/bin/python -m bench.processes --rounds 2 --jobs 20000
	$(VENV)/bin/python -m bench.mongodb --rounds 3 --jobs 5000
	$(VENV)/bin/python -m bench.growth --rounds 3 --largest 100000
	$(VENV)/bin/python -m bench.mixed --rounds 2 --bursts 6
	$(VENV)/bin/python -m bench.levers --rounds 2 --jobs 3000
	$(VENV)/bin/python -m bench.real_work --rounds 2 --seconds 2
	$(VENV)/bin/python -m bench.payloads --rounds 2 --jobs 500
	$(VENV)/bin/python -m bench.limits --rounds 2 --jobs 1000
	$(VENV)/bin/python -m bench.kept --rounds 2 --jobs 5000
	$(VENV)/bin/python -m bench.killers --rounds 1

bench-instructions: $(TESTABLE)
	$(VENV)/bin/python -m bench.instructions --json bench/results/instructions.json

bench-full: $(TESTABLE) servers
	for question in $(QUESTIONS); do \
		$(VENV)/bin/python -m bench.$$question --json bench/results/$$question.json || exit 1; \
	done

bench-peers-wait: $(TESTABLE) $(COMPARABLE) servers
	$(VENV)/bin/python -m bench.peers --work wait --json bench/results/peers_wait.json

bench-peers: bench-peers-wait
	$(VENV)/bin/python -m bench.peers --work noop --json bench/results/peers.json
	$(VENV)/bin/python -m bench.peers --work noop --jobs 10000 --only KQueue --only "Huey, SQLite" \
		--only "SAQ, Redis always" --only "Huey, Redis always" --json bench/results/peers_more.json

bench-report: $(TESTABLE)
	$(VENV)/bin/python -m bench.readme

bench-plots: $(PLOTTABLE)
	$(VENV)/bin/python -m bench.plots

lint: $(TESTABLE)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict kqueue

# Without a server its tests are skipped, and fail where CI is set.
servers: $(TESTABLE)
	@scripts/get-beanstalkd
	@scripts/get-strace
	@scripts/get-faketime
	@scripts/get-mongod "$(VENV)/bin/python" "$(VENV)/mongod"

clean:
	rm -rf "$(VENV)" "$(PEERS)" build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@scripts/make-venv "$(PYTHON)" "$(VENV)"
	@touch "$@"

$(INSTALLED): $(MADE) setup.cfg setup.py
	@echo "installing kqueue into $(VENV)"
	@$(PIP) install $(EDITABLE) .
	@touch "$@"

$(TESTABLE): $(INSTALLED)
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) install $(EDITABLE) ".[mongo,test]"
	@touch "$@"

$(PLOTTABLE): $(TESTABLE)
	@echo "installing what the plots need into $(VENV)"
	@$(PIP) install $(EDITABLE) ".[bench]"
	@touch "$@"

$(COMPARABLE): bench/peers/requirements.txt
	@scripts/get-peers "$(PYTHON)" "$(PEERS)"
	@touch "$@"
