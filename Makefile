# What `sam build` runs for each function (BuildMethod: makefile). ARTIFACTS_DIR is the folder that becomes the package.
PIP = python3 -m pip install --quiet --disable-pip-version-check --no-compile --target "$(ARTIFACTS_DIR)"
# Lambda on ARM, whatever this machine is.
FOR_LAMBDA = --only-binary=:all: --platform manylinux2014_aarch64 --implementation cp --python-version 3.12

SAMPLES = build-OrdersFunction build-SignupFunction build-CartFunction build-RemindersFunction
FRONT = build-EdgeFunction build-DeployFunction
.PHONY: $(SAMPLES) $(FRONT)

# The SDK needs one library; the runtime is not part of a handler's package.
$(SAMPLES):
	$(PIP) $(FOR_LAMBDA) 'protobuf>=5.29,<8'
	cp -r sdk/holdfast handlers "$(ARTIFACTS_DIR)"

# Lambda brings boto3; of Chalice only the half that runs is wanted.
$(FRONT):
	$(PIP) $(FOR_LAMBDA) 'protobuf>=5.29,<8' 'msgpack>=1.1,<2' 'xxhash>=3.5' 'zstandard>=0.23'
	$(PIP) --no-deps 'chalice==1.34.0' 'pynamodb==6.1.0'
	cp -r sdk/holdfast runtime/holdfast_runtime "$(ARTIFACTS_DIR)"
