# The local database (up … reset) needs python3 and nothing else. Everything else runs in .venv,
# which is set up when needed: a stamp, written last, says that the set-up is complete.

PYTHON ?= python3
LOCAL := up down status migrate psql logs reset
IN_VENV := PATH="$(CURDIR)/.venv/bin:$$PATH"

# A PORT, YES or NAME counts only if it is typed after `make`. A shell may export the same name for
# another program.
ifeq ($(origin PORT),command line)
export CLOUDFLOW_PORT := $(PORT)
endif
export UV_PYTHON_DOWNLOADS := never
# A proxy may have its own certificate authority. uv and Node then trust it as the system does.
export UV_SYSTEM_CERTS := true
export NODE_USE_SYSTEM_CA := 1
# The version of `cdk` is pinned: it asks no registry for a newer one.
export CDK_DISABLE_VERSION_CHECK := true

# Settings that a person made for other projects do not reach our programs. pip, uv and npm keep the
# settings that say where packages come from. PIP_USER also stands in pip's configuration files; the
# value 0 overrides them.
PYTHON_KEPT := PYTHON PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX PYTHONUNBUFFERED
PIP_KEPT := PIP_%URL PIP_%HOST PIP_%CERT PIP_PROXY PIP_%TIMEOUT PIP_RETRIES PIP_FIND_LINKS \
    PIP_NO_INDEX PIP_CONFIG_FILE PIP_CACHE_DIR PIP_KEYRING_PROVIDER
unexport $(filter-out $(PYTHON_KEPT),$(filter PYTHON%,$(.VARIABLES)))
unexport $(filter-out $(PIP_KEPT),$(filter PIP_%,$(.VARIABLES)))
unexport $(filter UV_%PYTHON UV_%PACKAGES UV_CONSTRAINT% UV_OVERRIDE% UV_EXCLUDE% UV_NO_BINARY% \
    UV_ONLY_BINARY% UV_TARGET UV_PREFIX,$(.VARIABLES))
unexport NODE_ENV NODE_OPTIONS NODE_PATH VIRTUAL_ENV
export PIP_USER := 0
export PYTHONNOUSERSITE := 1
export PYTHONUTF8 := 1

# Every cache is in this folder: the home folder may be / or closed. To share a cache between
# checkouts, export its variable.
CACHE := $(CURDIR)/.local/cache
export PIP_CACHE_DIR ?= $(CACHE)/pip
export UV_CACHE_DIR ?= $(CACHE)/uv
export npm_config_cache ?= $(CACHE)/npm
export JSII_RUNTIME_PACKAGE_CACHE_ROOT ?= $(CACHE)/jsii
export CDK_HOME ?= $(CACHE)/cdk

# Root would leave files here that the owner of this folder cannot change. In a container the owner
# is often unknown, and root is then the only user.
WHO := $(shell id -u; stat -c '%u %U' . 2>/dev/null || echo 0 UNKNOWN)
ifeq ($(word 1,$(WHO)),0)
ifeq ($(filter 0 UNKNOWN postgres,$(wordlist 2,3,$(WHO))),)
$(error this folder belongs to $(word 3,$(WHO)); run make as $(word 3,$(WHO)), without sudo)
endif
endif

ifeq ($(origin YES) $(YES),command line 1)
SAID_YES := --yes
endif

ifeq ($(origin NAME),command line)
TYPED_NAME := $(subst ','\'',$(NAME))
endif

.PHONY: help $(LOCAL) migration check check-unit check-synth test lint format bench synth app diff \
    prepare deploy review rotate base base-age snapshots contract lock clean

help:
	@sed -n 's/^\([a-z]*\):[^#]*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 17

up:      ## start the local database, up to date; PORT=7000 to choose its port
down:    ## stop it; its data stays
status:  ## what runs, where, and which migrations it has
migrate: ## apply new migrations
psql:    ## a prompt; ARGS='-c "SELECT 1"' for one statement
logs:    ## the end of each server's log
reset:   ## delete its data, after a yes; YES=1 does not ask
$(LOCAL):
	@$(PYTHON) -m db.local $@ $(if $(filter reset,$@),$(SAID_YES)) $(ARGS)

migration: ## write the next migration's file; NAME=add_x, ARGS=--index
	@test -n '$(TYPED_NAME)' || { echo "make $@: say what it does: make $@ NAME=add_x" >&2; exit 2; }
	@$(PYTHON) -m db.local $@ $(ARGS) -- '$(TYPED_NAME)'

check: .venv/.complete node_modules/.complete ## lint, and the tests that need no server
	@$(MAKE) --no-print-directory --jobs=3 lint check-unit check-synth

# The CDK's tests run in two processes. Each process loads the CDK for a second, so more cost time.
check-unit check-synth: PYTEST := $(IN_VENV) .venv/bin/python -u -m pytest --no-header
check-unit: .venv/.complete
	@$(PYTEST) tests/unit
check-synth: .venv/.complete node_modules/.complete
	@$(PYTEST) --numprocesses=2 tests/synth

# Most tests wait most of the time, so that four of them keep two cores busy.
WORKERS := 4
test: .venv/.complete node_modules/.complete ## run all tests; ARGS='-k pooler' for some, ARGS=-n0 to debug
	@$(PYTHON) -m db.local tools --containers
	@$(IN_VENV) .venv/bin/python -u -m pytest --numprocesses=$(WORKERS) $(ARGS)

lint: .venv/.complete ## formatting, lint and types
	@.venv/bin/ruff format --check
	@.venv/bin/ruff check
	@.venv/bin/ty check

format: .venv/.complete ## rewrite the Python files as lint wants them
	@.venv/bin/ruff check --fix --quiet --exit-zero
	@.venv/bin/ruff format

bench: .venv/.complete node_modules/.complete ## measure the local database and the synth
	@$(PYTHON) -m db.local tools
	@$(IN_VENV) .venv/bin/python -m tests.bench $(ARGS)

synth: .venv/.complete node_modules/.complete ## write every stack's CloudFormation into cdk.out
	@$(IN_VENV) node_modules/.bin/cdk synth --quiet $(ARGS)

# cdk.json names this target, so `cdk` runs it. It works in a fresh clone, and with the Node of
# .venv. `cdk` may also run in another folder, with --app "make --silent -C HERE app". Then PWD is
# that folder, and the output folder is relative to it. Images and functions get these files with
# their modes, and run as another user. After a clone with umask 077 only the owner could read them.
app: .venv/.complete
	@chmod -R go+rX db stacks/handlers
	@umask 022 && cd "$(or $(PWD),.)" && $(IN_VENV) "$(CURDIR)/.venv/bin/python" "$(CURDIR)/app.py"

diff:    ## what a deploy would change; ENV=staging
deploy:  ## cdk deploy of one environment; ENV=staging, ARGS=--no-rollback
diff deploy: .venv/.complete node_modules/.complete
	@test -n "$(ENV)" || { echo "make $@: say which environment: make $@ ENV=staging" >&2; exit 2; }
	@stacks=$$(.venv/bin/python -m stacks.commands.find_stacks "$(ENV)") \
	    $(if $(filter deploy,$@),&& .venv/bin/python -m stacks.commands.check_base) \
	    && $(IN_VENV) node_modules/.bin/cdk $@ "$$stacks" $(ARGS)

prepare: .venv/.complete ## what a fresh account needs before its first deploy; ENV=staging
	@.venv/bin/python -m stacks.commands.prepare_account "$(ENV)"

# A BASE counts only if it is typed after `make`, like PORT.
review: BASE_NAME := $(if $(filter command line,$(origin BASE)),$(subst ','\'',$(BASE)),main)
review: .venv/.complete node_modules/.complete ## what this branch changes, in words; BASE=main
	@$(IN_VENV) .venv/bin/python -m stacks.review '$(BASE_NAME)' $(ARGS)

rotate: .venv/.complete ## give the application a new password; ENV=staging, LOGIN=app_b
	@.venv/bin/python -m stacks.commands.rotate "$(ENV)" $(if $(LOGIN),"$(LOGIN)")

base: .venv/.complete ## pin the newest base of both images, and list the packages that changed
	@.venv/bin/python -m stacks.commands.pin_base

# CI says it too. Its steps run in the environment that make gives to our programs.
base-age: .venv/.complete
	@.venv/bin/python -m stacks.commands.check_base

snapshots: .venv/.complete node_modules/.complete ## renew tests/synth/snapshots and the table of costs
	@$(IN_VENV) .venv/bin/python -m tests.synth.snapshots

contract: .venv/.complete node_modules/.complete ## renew tests/synth/stateful.json, on purpose; YES=1
	@$(IN_VENV) .venv/bin/python -m tests.synth.contract $(SAID_YES)

COMPILE := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --custom-compile-command "make lock"
lock: .venv/.complete ## compile the lock files; ARGS=--upgrade for newer versions
	@$(COMPILE) pyproject.toml --group dev --output-file requirements.txt $(ARGS)
	@$(COMPILE) --group uv --output-file requirements-uv.txt $(ARGS)
	@$(IN_VENV) npm install --package-lock-only --loglevel=error >/dev/null
	@rm -rf .local/jars
	@mvn --batch-mode --quiet --strict-checksums -Dmaven.repo.local="$(CACHE)/maven" --file db/images/flyway/pom.xml \
	    -DoutputDirectory=$(CURDIR)/.local/jars \
	    org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies
	@cd .local/jars && sha256sum *.jar >$(CURDIR)/db/images/flyway/jars.sha256

clean: ## remove .venv, node_modules, cdk.out and caches; never the local database
	@rm -rf .venv node_modules cdk.out .local/cache .pytest_cache .ruff_cache
	@find . -name .local -prune -o -name __pycache__ -prune -exec rm -rf {} +

# Set-up. The stamp .venv/.complete holds the path of this folder. If the folder was moved, or its
# interpreter is gone, make sets it up again. An interrupted set-up leaves .venv without the stamp.
# The messages go to standard error, because `cdk` may run this and reads standard output.

ifneq ($(shell test -x .venv/bin/python && cat .venv/.complete 2>&1),$(CURDIR))
.PHONY: .venv/.complete
endif

.venv/.complete: requirements.txt requirements-uv.txt
	@$(PYTHON) -c '$(REFUSE_OLD_PYTHON)'
	@echo "setting up .venv: $$(grep -c == requirements.txt) packages ..." >&2
	@rm -rf .venv
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { $(INSTALL_VENV); }
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	    --requirement requirements-uv.txt
	@.venv/bin/uv pip install --quiet --python .venv --compile-bytecode --require-hashes \
	    --requirement requirements.txt
	@echo "$(CURDIR)" >$@

node_modules/.complete: package.json package-lock.json .npmrc | .venv/.complete
	@echo "setting up node_modules: the AWS CDK's command line ..." >&2
	@$(IN_VENV) npm ci --include=dev --no-global --loglevel=error >/dev/null
	@touch $@

define REFUSE_OLD_PYTHON
import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is Python %d.%d; needed is 3.11 \
or newer: make PYTHON=python3.11" % sys.version_info[:2])
endef

# Debian's python3 has no ensurepip. The package python3-venv adds it.
define INSTALL_VENV
sudo=; test "$$(id -u)" = 0 || sudo=sudo; \
if ! command -v apt-get || ! command -v $${sudo:-env}; then \
    echo "$(PYTHON) has no ensurepip: as root, run apt-get install python3-venv" >&2; exit 1; \
fi >/dev/null; \
echo "installing python3-venv ..." >&2; \
log=$$($$sudo sh -c 'export DEBIAN_FRONTEND=noninteractive; \
    dpkg --configure -a; apt-get update; \
    apt-get install --yes --no-install-recommends python3-venv' 2>&1) \
    || { echo "$$log" >&2; exit 1; }
endef
