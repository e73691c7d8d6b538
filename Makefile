# make parity   set up .venv, compare the Jittor port with the PyTorch reference, write a report
# make test     set up .venv, run the tests
# make doctor   what was found on this machine, what to type to mend it
# make clean    remove .venv and what the commands wrote
#
# make parity DEVICE=cuda      on an NVIDIA GPU
# make PYTHON=python3.11 ...   choose the Python (3.10 to 3.12)
# make PIP_ARGS="..." ...      further arguments for pip, for example a mirror of your own
# Each target's plain commands are the lines below it; README.md lists them too.

DEVICE ?= cpu
VENV ?= .venv
OUT ?= reports/out/parity
PIP_ARGS ?=
PYTEST_ARGS ?=

PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed-$(DEVICE)
comma := ,
EXTRAS := dev$(if $(filter cuda,$(DEVICE)),$(comma)cuda)

PIP := $(PY) -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)
# What Jittor needs to build its core, with the versions pyproject.toml pins.
JITTOR_PINS := $(shell sed -nE 's/^ *"((jittor|numpy|astunparse|onednn-[a-z-]+)==[0-9.]+)".*/\1/p' pyproject.toml)

# The first Python that is new enough for the code and old enough for NumPy 1.26.
FITS := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.10 python; do \
	if $$p -c '$(FITS)' >/dev/null 2>&1; then echo $$p; break; fi; done)

.PHONY: parity test doctor clean venv
.DEFAULT_GOAL := parity

parity: venv
	$(PY) -m alignment.report --output $(OUT) --device $(DEVICE)
	@echo "The report: $(OUT)/report.html"

test: venv
	$(PY) -m pytest -m "not cuda and not mpi" $(PYTEST_ARGS)

doctor: venv
	$(PY) -m jt_nanodet doctor

venv: $(STAMP)

$(STAMP): pyproject.toml
	@case "$(DEVICE)" in cpu|cuda) ;; *) echo 'error: unknown DEVICE "$(DEVICE)": type "make DEVICE=cpu" or "make DEVICE=cuda"' >&2; exit 2;; esac
	@test -n "$(PYTHON)" || { echo 'error: no Python 3.10, 3.11 or 3.12 found: install one and type "make PYTHON=/path/to/python3 ..."' >&2; exit 2; }
	@$(PYTHON) -c '$(FITS)' 2>/dev/null || { echo 'error: $(PYTHON) is not Python 3.10, 3.11 or 3.12: type "make PYTHON=python3.11 ..."' >&2; exit 2; }
	@command -v $${cc_path:-g++} >/dev/null || { echo 'error: Jittor compiles its kernels and there is no g++ here: type "apt-get install g++"' >&2; exit 2; }
	@$(PYTHON) -c 'import os, sysconfig, sys; sys.exit(not os.path.isfile(os.path.join(sysconfig.get_path("include"), "Python.h")))' || \
		{ echo 'error: Jittor needs Python.h and $(PYTHON) has none: type "apt-get install python3-dev"' >&2; exit 2; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { rm -rf $(VENV); $(PYTHON) -m virtualenv -q $(VENV) >/dev/null 2>&1; } || \
		{ rm -rf $(VENV); echo 'error: $(PYTHON) cannot make a virtual environment: type "apt-get install python3-venv"' >&2; exit 2; }
	@echo "Installing the pinned packages into $(VENV) (needed once) ..."
	$(PIP) $(JITTOR_PINS)
	@# Jittor's core is compiled while the large packages are fetched. Its failure is not final here:
	@# the command that needs Jittor tries again and says what is wrong.
	@$(if $(filter cpu,$(DEVICE)),$(PY) -m jt_nanodet prepare,true) & build=$$!; \
	echo '$(PIP) -e ".[$(EXTRAS)]"'; $(PIP) -e ".[$(EXTRAS)]" || { kill $$build 2>/dev/null; exit 2; }; \
	wait $$build || true
	@touch $@

clean:
	rm -rf $(VENV) reports/out build *.egg-info .pytest_cache
