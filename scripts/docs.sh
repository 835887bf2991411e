#!/bin/sh
# The documentation site: `docs.sh` serves it and renews it at every change, `docs.sh build` writes it to site/.
# A broken link, a missing anchor or a page that is not in the navigation is an error.
set -eu
cd "$(dirname "$0")/.."
sh scripts/install.sh dev
export NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true
case ${1:-serve} in
  build) shift; exec .venv/bin/mkdocs build --quiet --strict "$@" ;;
  serve) [ $# = 0 ] || shift; exec .venv/bin/mkdocs serve --dev-addr 127.0.0.1:8000 "$@" ;;
  *) echo "usage: scripts/docs.sh [build|serve] [options of mkdocs]" >&2; exit 2 ;;
esac
