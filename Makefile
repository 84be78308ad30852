# The front door. Meson and ninja do the work; see CONTRIBUTING in docs/ for the rest.
BUILD ?= build
JOBS  ?= $(shell nproc)

.PHONY: all check run bench fuzz lint install clean unit
all: $(BUILD)/build.ninja
	ninja -C $(BUILD) -j $(JOBS)

$(BUILD)/build.ninja:
	@tools/packages build
	meson setup $(BUILD) -Dwerror_ci=true

unit: all
	meson test -C $(BUILD) --no-rebuild --suite unit --print-errorlogs

check:
	@tools/check

run:
	@tools/run

bench: all
	@bench/run

fuzz:
	@tools/fuzz 30

lint: all
	@tools/lint

install: all
	@tools/install

clean:
	rm -rf $(BUILD) build-*
