# make demo     run the main job, on files of this machine, with nothing else to start
# make test     everything that must pass before a change is taken
# make torture  kill and freeze real processes for a minute, and say what became of every job
# make lint     ruff and mypy alone
# make clean    remove what make has made
#
# PYTHON=python3.13                        another interpreter (3.11 or newer)
# BROKER=beanstalk://127.0.0.1:11300       run the demo through a beanstalkd
# SECONDS=600 SEED=7                       how long the torture strikes, and with which choices
# STORE=mongodb BINLOG=no                  torture on MongoDB; on a beanstalkd without a binlog

PYTHON ?= python3
BROKER ?=
SECONDS ?= 60
SEED ?=
STORE ?= sqlite
BINLOG ?= yes

VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet
# Each stamp lies in the environment, so it goes when the environment goes. The first names its
# interpreter, so that another PYTHON makes the environment anew.
MADE := $(VENV)/.made-by-$(subst /,_,$(PYTHON))
INSTALLED := $(VENV)/.installed
TESTABLE := $(VENV)/.testable

.PHONY: demo test torture lint clean servers
.DEFAULT_GOAL := demo

demo: $(INSTALLED)
	@$(VENV)/bin/kqueue demo $(if $(BROKER),--broker "$(BROKER)")

test: lint servers
	$(VENV)/bin/python -m pytest

torture: $(TESTABLE) servers
	$(VENV)/bin/python -m tests.torture --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) --store $(STORE) \
		$(if $(filter no,$(BINLOG)),--no-binlog,--binlog)

lint: $(TESTABLE)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict kqueue

# Without a server its tests are skipped, and fail where CI is set.
servers: $(TESTABLE)
	@scripts/get-beanstalkd
	@scripts/get-mongod "$(VENV)/bin/python" "$(VENV)/mongod"

clean:
	rm -rf "$(VENV)" build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@scripts/make-venv "$(PYTHON)" "$(VENV)"
	@touch "$@"

$(INSTALLED): $(MADE) setup.cfg setup.py
	@echo "installing kqueue into $(VENV)"
	@$(PIP) install --editable .
	@touch "$@"

$(TESTABLE): $(INSTALLED)
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) install --editable ".[mongo,test]"
	@touch "$@"
