#!/bin/sh
# A shim of dual's: the command of this name, in a workspace. See `dual activate --help`.
shims=${0%/*} command=${0##*/}
. "$shims/.workspace" # container, source, name, and the engine

here=$(pwd -P)
case $here/ in
"$source"/*) workdir=/workspace${here#"$source"} ;;
*) workdir= ;;
esac
DUAL_RETRY="sh -c 'echo \"dual: workspace $name does not run: dual start $name\" >&2; exit 1'"
set -- "$container" '' "$workdir" '' '' "$command" \
    ${workdir:+"--workdir=$workdir"} "$container" "$command" "$@"
. "$shims/.run.sh"
