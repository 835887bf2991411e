#!/bin/sh
# Every benchmark of README.md after the other, tables into one folder (default .holdfast/bench-results): about 45 minutes.
# Wants the machine for itself.
set -eu
cd "$(dirname "$0")/.."
out="${1:-.holdfast/bench-results}"
python=.venv/bin/python
mkdir -p "$out"
measure() {
    name="$1"
    shift
    echo "== $name"
    "$@" 2>"$out/$name.err" | tee "$out/$name.md"
}
measure canned $python -m bench.bench_calls canned
measure http1 $python -m bench.bench_calls http1
measure lambda-front $python -m bench.bench_lambda_front
measure lambda $python -m bench.bench_calls lambda
measure in-process $python -m bench.bench_calls in-process
bench/setup_dbos.sh
measure dbos $python -m bench.bench_dbos
measure suspended $python -m bench.bench_suspended
measure query $python -m bench.bench_query
measure kill-loop $python -m bench.kill_loop
measure kill-loop-dynamodb $python -m bench.kill_loop --kills 20 --dynamodb
for what in client calls curve; do
    measure "dynamodb-$what" $python -m bench.bench_dynamodb "$what"
done
