# For the scripts that fetch, which read it after they have set `build`: one at a time below one build directory, and nobody
# replaces what another is reading. Held until the script that took it ends; those it starts know that.
if [ -z "${HEC_FETCH_LOCKED:-}" ]; then
    mkdir -p "$build"
    exec 9>"$build/.fetch.lock"
    flock 9
    export HEC_FETCH_LOCKED=1
fi
