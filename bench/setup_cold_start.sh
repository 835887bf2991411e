#!/bin/sh
# Installs what bench_cold_start.py compares, each as a Lambda package of its own below tools/cold-start (untracked), and the Lambda
# runtime client that starts them. Safe to run again.
set -eu
cd "$(dirname "$0")/.."
home=tools/cold-start
if [ ! -x $home/lambda/bin/python ]; then
    mkdir -p $home
    "${PYTHON:-python3}" -m venv $home/lambda
fi
pip="$home/lambda/bin/python -m pip --disable-pip-version-check -q"
$pip install "awslambdaric==4.2.2"

# `package NAME REQUIREMENT...` is what goes into a zip file: as `pip install --target` leaves it, nothing compiled.
package() {
    name=$1
    shift
    [ "$(cat $home/$name.txt 2>/dev/null)" = "$*" ] && return 0
    rm -rf "${home:?}/$name"
    $pip install --no-compile --target $home/$name "$@"
    rm -rf $home/$name/bin
    echo "$*" >$home/$name.txt
}

# Ours as `sam build` packs it (Makefile): the folder `holdfast` is copied by the benchmark, protobuf is all it needs.
package holdfast "protobuf==$(.venv/bin/python -c 'import importlib.metadata as m; print(m.version("protobuf"))')"
package restate "restate-sdk==1.3.0"
package aws-durable "aws-durable-execution-sdk-python==3.0.0"
package powertools "aws-lambda-powertools==3.37.0"
package boto3 "boto3==1.40.61"
