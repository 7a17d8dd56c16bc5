# SPDX-License-Identifier: GPL-2.0
# "make" or "make help" lists what there is.

BUILD ?= build

ifneq ($(filter command line,$(origin KDIR)),)
modules: ## build sluice.ko (KDIR=... [LLVM=1]: for that kernel, with this machine's tools)
	@mkdir -p $(BUILD)/module
	$(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(abspath $(BUILD)/module) modules
else
modules: setup-quiet ## build sluice.ko (KDIR=... [LLVM=1]: for that kernel, with this machine's tools)
	@tools/build $(if $(CLIPPY),CLIPPY=$(CLIPPY))
endif

setup-quiet:
	@tools/setup --quiet

.PHONY: modules setup-quiet
