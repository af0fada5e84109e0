#!/bin/sh
# Rendered by dual. Prepares a workspace, unless that is done, and becomes its command.
#
# DUAL_SETUP is what prepares it. /dual/record is a volume of the workspace's, which goes when
# its data goes: it tells what the setup has succeeded for. /dual/report is a folder of the
# host: dual leaves the id of the image there, and reads how it went.

wanted() {
    {
        printf '%s\n' "$DUAL_SETUP"
        for file in package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock bun.lockb deno.lock uv.lock poetry.lock pdm.lock Pipfile.lock requirements.txt pixi.lock Gemfile.lock composer.lock Cargo.lock go.sum mix.lock rebar.lock pubspec.lock Package.resolved packages.lock.json gradle.lockfile flake.lock; do
            if [ -f "$file" ]; then
                printf '%s\n' "$file"
                cat "$file"
            fi
        done
    } | sha256sum | cut -d ' ' -f 1
}

report() {
    { printf '%s\n' "$*" >/dual/report/state.new &&
        mv -f /dual/report/state.new /dual/report/state; } 2>/dev/null
}

# "-" stands for an image that nobody knows: where Compose alone has started the workspace.
is_done() {
    { read -r for_what for_image </dual/record/done; } 2>/dev/null || return 1
    [ "$for_what" = "$(wanted)" ] || return 1
    [ "$image" = - ] || [ "$for_image" = - ] || [ "$for_image" = "$image" ]
}

image=-
{ read -r image </dual/report/image; } 2>/dev/null
if ! is_done; then
    report running
    rm -f /dual/record/done 2>/dev/null
    (
        setup=$DUAL_SETUP
        unset DUAL_SETUP
        exec sh -ec "$setup" </dev/null 2>&1 # in the order in which it says things
    )
    code=$?
    if [ "$code" -ne 0 ]; then
        echo "dual: the setup failed with exit code $code"
        report failed "$code"
        exec tail -f /dev/null # up, for somebody to look at
    fi
    # As it is now: the setup may have brought a lock file up to date.
    { printf '%s %s\n' "$(wanted)" "$image" >/dual/record/done; } 2>/dev/null ||
        echo "dual: /dual/record can't be written: the setup will run at each start"
fi
echo "dual: the setup is done"
report "done" "$(wanted)"
unset DUAL_SETUP
exec "$@"
