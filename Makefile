# make demo | make test | make check | make lock
PY ?= python3.11
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1
export HF_DATASETS_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
unexport PYTHONDONTWRITEBYTECODE
.PHONY: demo test check lock format

# pip leaves compiling to the first import, which the line above allows whatever the shell says.
.venv/.done: requirements.lock
	test -x $(BIN)/python || $(PY) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -r requirements.lock
	touch $@

demo: .venv/.done  ## a small grid on the built-in model: table, plot, and where they are
	$(BIN)/python run.py -m method=svd,slicegpt budget=0.3

test: .venv/.done  ## install what is missing, lint, type-check, run the whole suite
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

check: .venv/.done  ## the quick loop, without the slow tests
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -m "not slow" -x -n 2 --dist loadfile

lock:  ## pin what is installed now
	(echo "# Every package of the environment, pinned. Made by: make lock"; $(BIN)/python -m pip freeze | grep -viE "^(pip|setuptools|wheel)==|^-e" | sed 's/+cpu$$//') > requirements.lock

format: .venv/.done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
