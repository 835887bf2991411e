# What `sam build` runs for each function (BuildMethod: makefile). ARTIFACTS_DIR is the folder that becomes the package.
# Built in the source folder (samconfig.toml), so that functions share what was installed, and nothing is copied that is not packed.

# Lambda on ARM, whatever this machine is. For `sam local` on another one: make it LAMBDA_PLATFORM=manylinux2014_x86_64, and LAMBDA_PYTHON
# the version of the local image, in the environment of `sam build`.
LAMBDA_PLATFORM ?= manylinux2014_aarch64
LAMBDA_PYTHON ?= 3.12
PIP = python3 -m pip install --quiet --disable-pip-version-check --no-compile
FOR_LAMBDA = --only-binary=:all: --platform $(LAMBDA_PLATFORM) --implementation cp --python-version $(LAMBDA_PYTHON)

# Lambda cannot keep bytecode, so each cold start would compile the sources again: half of its imports. Needs the function's own version of Python.
COMPILED = @if python$(LAMBDA_PYTHON) -c "" 2>/dev/null; then \
	python$(LAMBDA_PYTHON) -m compileall -q --invalidation-mode unchecked-hash "$(ARTIFACTS_DIR)"; \
	else echo "python$(LAMBDA_PYTHON) is not here: the package has no bytecode, and cold starts take longer"; fi

# Versions of the lock file, which is what is tested.
LOCKED = $(shell sh scripts/locked.sh $(1))
DEPENDENCIES = .aws-sam/dependencies/$(LAMBDA_PLATFORM)-$(LAMBDA_PYTHON)
SAMPLES = build-OrdersFunction build-SignupFunction build-CartFunction build-RemindersFunction
FRONT = build-EdgeFunction build-DeployFunction
.PHONY: $(SAMPLES) $(FRONT)

# The SDK needs one library; the runtime is not part of a handler's package.
$(SAMPLES): $(DEPENDENCIES)/samples
	cp -r $</. "$(ARTIFACTS_DIR)"
	tar --exclude=__pycache__ -cf - -C sdk holdfast -C ../ handlers | tar -xf - -C "$(ARTIFACTS_DIR)"
	$(COMPILED)

$(FRONT): $(DEPENDENCIES)/front
	cp -r $</. "$(ARTIFACTS_DIR)"
	tar --exclude=__pycache__ --exclude=ui -cf - -C sdk holdfast -C ../runtime holdfast_runtime | tar -xf - -C "$(ARTIFACTS_DIR)"
	$(COMPILED)

$(DEPENDENCIES)/samples: uv.lock Makefile
	rm -rf $@ $@.part
	$(PIP) --target $@.part $(FOR_LAMBDA) $(call LOCKED,protobuf)
	mv $@.part $@ && touch $@

# Lambda brings boto3; of Chalice only the half that runs is wanted, and of zstandard one of its three engines.
$(DEPENDENCIES)/front: uv.lock Makefile
	rm -rf $@ $@.part
	$(PIP) --target $@.part $(FOR_LAMBDA) $(call LOCKED,protobuf msgpack xxhash zstandard)
	$(PIP) --target $@.part --no-deps $(call LOCKED,chalice pynamodb)
	rm -rf $@.part/bin $@.part/chalice/cli $@.part/chalice/deploy $@.part/zstandard/_cffi* $@.part/zstandard/backend_rust*
	mv $@.part $@ && touch $@
