# shellcheck shell=bash
# Sourced by the scripts here: what they say, and what they install.

step='start'
trap 'echo "$0: FAILED at: $step" >&2' ERR
begin() {
    step=$1
    echo "== $step"
}

# How what only root may do begins.
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo)
fi

can_install() {
    command -v apt-get >/dev/null && { [ "${#as_root[@]}" -eq 0 ] || command -v sudo >/dev/null; }
}

# Installs Debian packages if the program that they bring is missing.
need() {
    local program=$1
    shift
    command -v "$program" >/dev/null && return
    begin "install $*"
    if ! can_install; then
        echo "$0: $program is missing, and there is no apt-get, or neither root nor sudo:" \
            "please install it (on Debian: $*)" >&2
        return 1
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
