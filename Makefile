# SPDX-License-Identifier: GPL-2.0
# "make" lists what there is.

.DEFAULT_GOAL := help
.PHONY: help setup setup-quiet modules demo test test-core test-vm test-debug test-programs fuzz breakages bench soak lint doc shell clean distclean

help: ## this list
	@echo "Sluice: slices of a network card for virtual machines."
	@echo "Needs Debian 12 or 13 and root; everything else is made by 'make setup'."
	@echo
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## build root, kernel and test machine, in ~/.cache/sluice (4 minutes once)
	@tools/setup

setup-quiet:
	@tools/setup --quiet

ifeq ($(origin KDIR),command line)
modules:
	@mkdir -p build/module
	$(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(CURDIR)/build/module modules
else
modules: setup-quiet ## sluice.ko, in build/module (KDIR=dir [LLVM=1]: for that kernel, by this machine's tools)
	@tools/build $(foreach name,CLIPPY V WERROR,$(if $($(name)),$(name)=$($(name))))
endif

test-programs: setup-quiet ## the tests' C programs, in build/
	@tools/build-tests

demo: setup-quiet ## two guests talk to each other and to the wire through slices
	@tools/demo

test: ## all tests; ends with "N passed, N failed"
	@tests/run self core vm

test-core: ## only the pure crate's, with cargo
	@tests/run core

test-vm: ## only those on emulated machines (TESTS="name ...": only these)
	@tests/run vm $(TESTS)

test-debug: ## the same on a kernel that looks for faults itself (built first, half an hour; BESIDE=n: machines at once)
	@tests/run --debug $(if $(BESIDE),--beside $(BESIDE)) vm $(TESTS)

fuzz: setup-quiet ## fuzz the pure crate (MINUTES=n; TARGET=name: only this one)
	@tools/fuzz run $(or $(MINUTES),10) $(TARGET)

breakages: setup-quiet ## break the code on purpose, in a copy: do the tests notice? (BREAK="--vm name ...")
	@tests/break $(BREAK)

bench: modules ## measure, and compare with the alternatives
	@tools/bench

soak: setup-quiet ## guests, hostile clients and all that may happen, for long (MINUTES=n SEED=n)
	@tools/soak --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED))

lint: ## style and static checks
	@tests/run lint

doc: setup-quiet ## the pure crate's documentation, in build/target/doc
	@tools/cargo rust/core doc --no-deps

shell: modules test-programs ## a shell on the test machine
	@tools/vm --shell

clean: ## remove build/
	@rm -rf build

distclean: clean ## and the cache
	@rm -rf $${SLUICE_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/sluice}
