#!/bin/sh
# Rendered by dual. Prepares a workspace, unless that is done, and becomes its command.
#
# DUAL_SETUP is what prepares it. Below /dual are three folders:
#   asked   of the host, read-only: a word that stands for this start, and what the setup is for
#   report  of the host: how it goes, for dual to read, after the word that it was asked with
#   record  a volume of the workspace's, which goes when its data goes: what it has succeeded for
# Compose alone asks for nothing: the setup runs once then.

word=- what=-
{ read -r word what </dual/asked/setup; } 2>/dev/null

report() {
    { printf '%s\n' "$word $*" >/dual/report/state.new &&
        mv -f /dual/report/state.new /dual/report/state; } 2>/dev/null
}

is_done() {
    { read -r done_for </dual/record/done; } 2>/dev/null && [ "$done_for" = "$what" ]
}

if ! is_done; then
    report running
    echo "dual: setup begins: $word"
    rm -f /dual/record/done 2>/dev/null
    (
        setup=$DUAL_SETUP
        unset DUAL_SETUP
        exec sh -ec "$setup" </dev/null 2>&1 # in the order in which it says things
    )
    code=$?
    if [ "$code" -ne 0 ]; then
        echo "dual: setup failed: $word: exit code $code"
        report failed "$code"
        while sleep 3600; do :; done # up, for somebody to look at
        exit "$code"
    fi
    { printf '%s\n' "$what" >/dual/record/done; } 2>/dev/null ||
        echo "dual: /dual/record can't be written: the setup will run at each start"
fi
echo "dual: setup is done: $word"
report "done"
unset DUAL_SETUP
exec "$@"
