# Every target creates the virtual environment it needs. `make` without a target lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
PIP := .venv/bin/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help demo test check bench docs tutorials clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

demo: demo/test.tsv ## train, evaluate and use a language-identification model (under 5 minutes)
	srucli train demo/train.tsv --dev demo/dev.tsv -o demo/run
	srucli eval demo/run demo/test.tsv
	printf '%s\n' 'The train to the coast leaves at noon.' 'Wir gehen heute Abend ins Kino.' \
	  'El perro duerme en la cocina.' 'Quelle belle soirée pour une promenade !' \
	  'Кошка спит на тёплом окне.' '내일은 아침부터 비가 온다고 합니다.' '明日の朝、駅で会いましょう。' \
	  'Kitaplarımı masanın üzerinde unuttum.' | srucli predict demo/run - --probability --with-input

test: .venv/installed ## run the tests
	python -m pytest --numprocesses auto --dist worksteal

check: .venv/installed ## ruff, and mypy --strict on all code
	ruff check .
	ruff format --check .
	mypy --strict

bench: .venv/installed-benchmarks ## accuracy of srucli, fastText and linear models on the data sets present
	python -m benchmarks.accuracy

docs: .venv/installed ## generate docs/commands.md from the help texts, and the plots from docs/results.md
	python docs/make_commands.py
	python docs/make_plots.py

tutorials: .venv/installed ## run the commands of the tutorials; keep what they print and draw (2 minutes)
	python docs/make_tutorial.py

clean: ## remove everything that make created
	rm -rf .venv demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

demo/test.tsv: data/django_locales.py .venv/installed
	python data/django_locales.py demo

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable '.[dev,demo,zst,schedulefree,pytorch-optimizer,tune,tensorboard]'
	touch $@

.venv/installed-benchmarks: .venv/installed
	$(PIP) --editable '.[benchmarks]'
	touch $@
