#!/usr/bin/env bash
# Makes an image for `sam local` out of an interpreter of this machine, where none can be pulled:
#   scripts/lambda_image.sh [python3.11] [3.11] [lambda-python311:local]
# Needs a running Docker engine, busybox-static, and pip for awslambdaric and boto3. Takes about ten seconds.
#
# What `sam local` expects: /var/runtime/bootstrap (it is started), /var/lang/bin/python3.X and /var/runtime/bootstrap.py (debug mode),
# /var/task (the function is mounted there), /bin/sh, mv and chmod (SAM adds its emulator in a layer), and every shared library of the
# interpreter and of /var/runtime. One name of an image per version of Python: SAM derives its own from the name alone.
set -euo pipefail
PY=${1:-python3.11} V=${2:-3.11} TAG=${3:-lambda-python311:local}
R=$(mktemp -d); trap 'rm -rf "$R" "$R.v"' EXIT
mkdir -p "$R"/{bin,lib64,etc,proc,sys,dev,opt,usr/bin,var/task,var/runtime,var/rapid,var/lang/bin,var/lang/lib}
mkdir -m 1777 "$R/tmp"

PREFIX=$("$PY" -c 'import sys; print(sys.base_prefix)')
REAL=$("$PY" -c 'import os, sys; print(os.path.realpath(sys.executable))')
STDLIB=$("$PY" -c 'import sysconfig; print(sysconfig.get_paths()["stdlib"])')

cp "$REAL" "$R/var/lang/bin/python$V"
ln -s "python$V" "$R/var/lang/bin/python3"; ln -s python3 "$R/var/lang/bin/python"
tar -C "$(dirname "$STDLIB")" --exclude=site-packages --exclude=dist-packages --exclude=test --exclude=tests \
    --exclude=idlelib --exclude=tkinter --exclude=ensurepip --exclude='config-*' --exclude='*.a' \
    -cf - "$(basename "$STDLIB")" | tar -C "$R/var/lang/lib" -xf -
mkdir -p "$R/var/lang/lib/python$V/site-packages"

"$PY" -m venv "$R.v"
"$R.v/bin/pip" install -q --no-compile --target "$R/var/runtime" awslambdaric boto3

{ echo "$REAL"; find "$R/var/lang/lib/python$V/lib-dynload" "$R/var/runtime" -name '*.so'; } |
  xargs -r ldd 2>/dev/null | awk '/=> \//{print $3} /^\t\//{print $1}' | sort -u |
  while read -r so; do
    case "$so" in "$PREFIX"/lib/libpython*) dest="$R/var/lang/lib/$(basename "$so")" ;; *) dest="$R$so" ;; esac
    mkdir -p "$(dirname "$dest")"; cp -L "$so" "$dest"
  done

cp /bin/busybox "$R/bin/busybox"
for a in sh mv cp rm ls cat chmod mkdir env id sleep ps; do ln -sf busybox "$R/bin/$a"; done
ln -s /bin/env "$R/usr/bin/env"
echo 'root:x:0:0:root:/root:/bin/sh' > "$R/etc/passwd"; echo 'root:x:0:' > "$R/etc/group"
echo 'hosts: files dns' > "$R/etc/nsswitch.conf"

cat > "$R/var/runtime/bootstrap.py" <<'END'
import os, sys
sys.path[:0] = ["/var/task", "/opt/python"]
from awslambdaric.__main__ import main
main(["", os.environ["_HANDLER"]])
END
cat > "$R/var/runtime/bootstrap" <<END
#!/bin/sh
export PYTHONPATH="/opt/python:/var/runtime"
cd "\${LAMBDA_TASK_ROOT:-/var/task}"
exec /var/lang/bin/python$V /var/runtime/bootstrap.py
END
chmod 755 "$R/var/runtime/bootstrap"

tar -C "$R" --owner=0 --group=0 -cf - . | docker import --platform linux/amd64 \
  -c 'ENV PATH=/var/lang/bin:/usr/local/bin:/usr/bin:/bin:/opt/bin' \
  -c 'ENV LD_LIBRARY_PATH=/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/task:/var/task/lib:/opt/lib' \
  -c 'ENV LANG=C.UTF-8 TZ=:UTC LAMBDA_TASK_ROOT=/var/task LAMBDA_RUNTIME_DIR=/var/runtime' \
  -c 'WORKDIR /var/task' -c 'ENTRYPOINT ["/var/runtime/bootstrap"]' - "$TAG"
