#!/usr/bin/env bash
# Installs the worker as a service of systemd, and takes it away again. Says what it is about to do, does
# it, and waits until the worker is registered.
set -euo pipefail

usage() {
    cat <<'TEXT'
Installs the worker as a service, starts it, and waits until it is registered.

  sudo ./install.sh --backend URL [SETTING…] [--token-file FILE]
  ./install.sh --user --backend URL          without root, as a service of yours
  sudo ./install.sh                          after a `git pull`: upgrades; running jobs finish first
  sudo ./install.sh --uninstall [--purge]

  --backend URL        the marketplace
  --price P  --name N  --location L  --address A  --listen ADDR
                       further settings, as of `worker --help`
  --token-file FILE    the bearer token; it is copied to where only the service can read it
  --binary FILE        a worker that is already built; without it, it is built here
  --user               for you alone, in your home
  --prefix DIR         instead of /usr/local, or of ~/.local with --user
  --dry-run            say what would be done, and do nothing
  --uninstall          take it away, but for its settings and its state
  --purge              with --uninstall: these too

Settings are written to worker.toml only if there is none yet.
TEXT
}

# WHAT [THE FIX…]
fail() {
    printf 'install.sh: %s\n' "$1" >&2
    shift
    for fix in "$@"; do
        printf '  %s\n' "$fix" >&2
    done
    exit 1
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mode=install
user=no
purge=no
dry_run=no
prefix=
binary=
token_file=
backend=
listen=
settings=()

# KEY VALUE as a line of worker.toml; a number stays one.
setting() {
    local value=${2//\\/\\\\}
    value=${value//\"/\\\"}
    [[ $value =~ ^[0-9]+(\.[0-9]+)?$ ]] || value="\"$value\""
    settings+=("$1 = $value")
}

parse() {
    local flag
    while [ $# -gt 0 ]; do
        flag=$1
        shift
        case $flag in
        --backend | --price | --name | --location | --address | --listen | --token-file | --binary | --prefix)
            [ $# -gt 0 ] || fail "$flag needs a value" 'see ./install.sh --help'
            value_of "$flag" "$1"
            shift
            ;;
        --user) user=yes ;;
        --dry-run) dry_run=yes ;;
        --uninstall) mode=uninstall ;;
        --purge) purge=yes ;;
        -h | --help)
            usage
            exit
            ;;
        *) fail "what is $flag?" 'see ./install.sh --help' ;;
        esac
    done
    if [ "$purge" = yes ] && [ "$mode" = install ]; then
        fail '--purge goes with --uninstall'
    fi
}

value_of() {
    case $1 in
    --token-file) token_file=$2 ;;
    --binary) binary=$2 ;;
    --prefix) prefix=$2 ;;
    --backend)
        backend=$2
        setting backend "$2"
        ;;
    --listen)
        listen=$2
        setting listen "$2"
        ;;
    *) setting "${1#--}" "$2" ;;
    esac
}

# Where everything goes.
settle() {
    if [ "$user" = yes ]; then
        scope=(--user)
        ctl='systemctl --user'
        log='journalctl --user -u qubix-worker'
        whom="$(id -un)"
        when='when you log in'
        prefix=${prefix:-$HOME/.local}
        config=${XDG_CONFIG_HOME:-$HOME/.config}/qubix-worker
        toml=$config/worker.toml
        unit=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/qubix-worker.service
        unit_source=$here/systemd/user/qubix-worker.service
        token=$config/token
        state=${XDG_STATE_HOME:-$HOME/.local/state}/qubix-worker
        status=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}/qubix-worker/status.json
    else
        scope=(--system)
        ctl=systemctl
        log='journalctl -u qubix-worker'
        whom='this machine'
        when='at every boot'
        prefix=${prefix:-/usr/local}
        config=/etc/qubix-worker
        toml=$config/worker.toml
        unit=/etc/systemd/system/qubix-worker.service
        unit_source=$here/systemd/qubix-worker.service
        token=/etc/credstore/qubix-worker.token
        state=/var/lib/qubix-worker
        status=/run/qubix-worker/status.json
    fi
    case $prefix in
    /*) ;;
    *) fail "--prefix $prefix is no whole path" "write it from the root on: --prefix $PWD/$prefix" ;;
    esac
    if [ "$user" = yes ] && [ -n "$token_file" ]; then
        setting token-file "$token"
    fi
    worker=$prefix/bin/worker
    manifest=$prefix/share/qubix-worker/installed
}

ctl() { systemctl "${scope[@]}" "$@"; }
journal() { journalctl "${scope[@]}" --no-pager -o cat -u qubix-worker "$@"; }
is_active() { ctl --quiet is-active qubix-worker; }

# What has to be so before anything is done.

check_root() {
    [ "$user" = yes ] || [ "$dry_run" = yes ] || [ "$(id -u)" -eq 0 ] ||
        fail 'a service of the machine is installed by root' \
            "with root:     sudo ./install.sh $arguments" \
            "without root:  ./install.sh --user $arguments"
    [ "$user" = no ] || [ "$(id -u)" -ne 0 ] ||
        fail '--user is for one who is not root' 'leave it out, or run this as the user' \
            'who is to have the service'
}

check_systemd() {
    [ -d /run/systemd/system ] ||
        fail 'this machine is not run by systemd' \
            'build it with: cargo build --release --locked' \
            'and have what runs services here run: worker --backend URL'
    [ "$user" = no ] || systemctl --user show-environment >/dev/null 2>&1 ||
        fail 'your systemd cannot be reached' \
            'log in by ssh or at the machine, not by su or sudo; if that does not help:' \
            'sudo apt-get install dbus-user-session, and log in again'
}

check_package() {
    [ "$user" = yes ] || [ ! -e /usr/lib/systemd/system/qubix-worker.service ] ||
        fail 'a package has installed the worker already' \
            'upgrade that, or: sudo apt-get remove qubix-worker'
}

check_settings() {
    if [ -e "$toml" ]; then
        return
    fi
    case $backend in
    http://* | https://*) ;;
    '') fail 'whom to work for?' 'say --backend URL' ;;
    *) fail "--backend $backend is no address" 'it begins with https:// or http://' ;;
    esac
    local port=${listen##*:} host=127.0.0.1
    case $listen in
    *:*) host=${listen%:*} ;;
    esac
    # A worker of ours that runs already may well be who listens there.
    if [ -n "$port" ] && ! is_active 2>/dev/null && listens "${host//[][]/}" "$port"; then
        fail "something listens at $listen already" \
            "see what it is with: ss -ltnp 'sport = :$port'" 'or choose another port'
    fi
}

listens() { (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null; }

check_token() {
    [ -z "$token_file" ] || [ -r "$token_file" ] || fail "cannot read $token_file" \
        'say --token-file with a file that holds the bearer token'
}

check_tools() {
    if [ -n "$binary" ]; then
        [ -f "$binary" ] || fail "there is no $binary" 'say --binary with the file of a built worker'
        # A name alone would be looked for in the PATH.
        binary=$(realpath "$binary")
        return
    fi
    local needed found
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$here/Cargo.toml")
    found=$("${builder[@]}" cargo --version 2>/dev/null) ||
        fail 'Rust is missing, to build the worker with' \
            "install it from https://rustup.rs, or give a built worker: --binary FILE"
    printf '%s\n' "cargo $needed" "${found% (*}" | sort --version-sort --check=quiet ||
        fail "Rust is too old: this is ${found% (*}, and $needed is needed" \
            'with rustup: rustup update' \
            'with that of the distribution: install it from https://rustup.rs, or give a built worker: --binary FILE'
    # With the files of the C library, which come in a package of their own.
    echo 'int main(void) { return 0; }' | cc -x c -o "$scratch/compiled" - 2>/dev/null ||
        fail 'a C compiler is missing, to build the worker with' \
            'on Debian: sudo apt-get install gcc libc6-dev; on Fedora: sudo dnf install gcc'
}

# Under sudo the sources and Rust are those of the user who called it. A Rust that was installed a minute
# ago is not in the PATH of the shell that did it.
builder=(env "PATH=${HOME:-/root}/.cargo/bin:$PATH")
if [ "$(id -u)" -eq 0 ] && [ -n "${SUDO_USER:-}" ]; then
    home=$(getent passwd "$SUDO_USER" | cut -d: -f6)
    builder=(runuser -u "$SUDO_USER" -- env "HOME=$home" "PATH=$home/.cargo/bin:$PATH")
fi

plan() {
    echo "Installs the worker for $whom:"
    [ -n "$binary" ] || echo "  builds   it in $here, which takes 3 to 10 minutes"
    echo "  installs $worker, its unit, manual page and completions"
    if [ -e "$toml" ]; then
        echo "  keeps    $toml as it is"
    else
        echo "  writes   $toml"
    fi
    [ -z "$token_file" ] || echo "  copies   the token to $token"
    [ "$user" = yes ] || getent passwd qubix-worker >/dev/null || echo '  makes    the user qubix-worker'
    if is_active 2>/dev/null; then
        echo '  restarts the service, if something changed; running jobs may finish, which can take 10 minutes'
    else
        echo "  starts   the service, now and $when"
    fi
}

build() {
    [ -z "$binary" ] || return 0
    echo 'Building…'
    local target=${CARGO_TARGET_DIR:-$here/target}
    (cd "$here" && "${builder[@]}" cargo build --release --locked --bin worker --target-dir "$target") ||
        fail 'the build failed' 'cargo says why, above; without a network it cannot fetch what it builds on'
    binary=$target/release/worker
}

# That it runs here at all, and takes the settings, is found out before anything is changed.
try() {
    local said
    said=$("$binary" --version 2>&1) || case $said in
    *GLIBC*) fail 'that worker was built for a newer system' \
        "$(printf '%s\n' "$said" | grep -o 'GLIBC_[0-9.]*. not found' | tail -n 1)" \
        'build it here: leave --binary out' ;;
    *) fail "$binary does not run: $said" 'it has to be built for this machine' ;;
    esac
    echo "$said"
    local of=$toml fix="correct $toml"
    if [ ! -e "$toml" ]; then
        of=$scratch/worker.toml
        fix='say them otherwise; see ./install.sh --help'
        write_toml >"$of"
    fi
    said=$("$binary" specs --config "$of" --state-dir "$scratch/state" 2>&1 >/dev/null) ||
        fail "it does not take these settings: ${said//$scratch\//}" "$fix"
}

write_toml() {
    echo "# Each flag of 'worker --help' has a key of its name here. After a change:"
    echo "#   $ctl reload qubix-worker"
    printf '%s\n' "${settings[@]}"
}

# Every file and folder that was made is noted, the folders first, so that they can be taken away.
note() { grep -qxF "$1" "$manifest" 2>/dev/null || echo "$1" >>"$manifest"; }

folder() {
    [ ! -d "$1" ] || return 0
    folder "$(dirname "$1")"
    mkdir "$1"
    made+=("$1")
}

# MODE FROM TO; says by its exit code whether something changed.
changed=no
place() {
    made=()
    folder "$(dirname "$3")"
    folder "$(dirname "$manifest")"
    for path in "${made[@]}" "$manifest" "$3"; do
        note "$path"
    done
    cmp -s "$2" "$3" && return
    install -m "$1" "$2" "$3"
    changed=yes
}

differs() { ! cmp -s "$1" "$2"; }

drain() {
    if is_active && { differs "$binary" "$worker" || differs "$scratch/unit" "$unit"; }; then
        echo 'Waiting for running jobs to finish…'
        ctl stop qubix-worker
    fi
}

# FILE WHAT…, which the worker prints.
print_to() {
    "$worker" "${@:2}" >"$scratch/printed"
    place 644 "$scratch/printed" "$1"
}

install_all() {
    sed "s|/usr/bin/worker|$worker|" "$unit_source" >"$scratch/unit"
    drain
    place 755 "$binary" "$worker"
    place 644 "$scratch/unit" "$unit"
    local share=$prefix/share
    print_to "$share/man/man1/worker.1" man
    print_to "$share/bash-completion/completions/worker" completions bash
    print_to "$share/zsh/site-functions/_worker" completions zsh
    print_to "$share/fish/vendor_completions.d/worker.fish" completions fish
    if [ "$user" = no ]; then
        systemd-sysusers "$here/systemd/qubix-worker.sysusers"
    fi
    install_settings
}

install_settings() {
    mkdir -p "$config"
    if [ ! -e "$toml" ]; then
        install -m 644 "$scratch/worker.toml" "$toml"
    else
        keep_settings
    fi
    [ -n "$token_file" ] || return 0
    [ -d "$(dirname "$token")" ] || install -d -m 700 "$(dirname "$token")"
    if differs "$token_file" "$token"; then
        install -m 600 "$token_file" "$token"
        changed=yes
    fi
}

# What is not in there already is left to its owner.
keep_settings() {
    local line missing=()
    for line in "${settings[@]}"; do
        grep -qxF -- "$line" "$toml" || missing+=("$line")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "$toml is kept as it is. To have what you said, write into it yourself:"
    printf '  %s\n' "${missing[@]}"
    echo "then: $ctl reload qubix-worker"
}

start() {
    ctl daemon-reload
    if [ "$user" = yes ]; then
        lingers || loginctl enable-linger 2>/dev/null || true
    fi
    ctl --quiet enable qubix-worker
    if [ "$changed" = no ] && is_active; then
        echo 'Nothing changed.'
    elif is_active; then
        ctl restart qubix-worker || explain
    else
        ctl reset-failed qubix-worker 2>/dev/null || true
        ctl start qubix-worker || explain
    fi
}

# Why the service did not start, in its own words, and what to do.
explain() {
    local code
    code=$(ctl show -P ExecMainStatus qubix-worker)
    last_words
    case $code in
    2) fail 'the worker does not take its settings' "correct $toml, then: $ctl start qubix-worker" ;;
    3) fail 'the backend refuses the token' 'install again with --token-file FILE' ;;
    4) fail "the state in $state cannot be used, or another worker uses it" "see above" ;;
    *) fail 'the worker did not start' "see: $ctl status qubix-worker" ;;
    esac
}

last_words() {
    echo 'What it said last:'
    journal -n 8 | sed 's/^/  | /'
}

# By root the doctor does not find by itself what the unit hands to the service.
doctor() {
    local line="$worker doctor --config $toml"
    if [ "$user" = no ]; then
        line="sudo $line --state-dir $state"
        [ ! -e "$token" ] || line+=" --token-file $token"
    fi
    echo "$line"
}

is_registered() { grep -q '"registered": *true' "$status" 2>/dev/null; }

await_registration() {
    echo 'Waiting for the backend…'
    local deadline=$((SECONDS + 30))
    until is_registered; do
        ctl --quiet is-failed qubix-worker && explain
        if [ "$SECONDS" -ge "$deadline" ]; then
            last_words
            fail 'the worker runs, but the backend has not registered it yet; it goes on trying' \
                "is the backend right? it stands in $toml; after a change: $ctl reload qubix-worker" \
                "for more: $(doctor)"
        fi
        sleep 0.2
    done
    echo "Registered. This machine's time is for sale."
    local program=worker
    case :$PATH: in
    *":$prefix/bin:"*) ;;
    *) program=$worker ;;
    esac
    echo "  how it is:  $program status"
    echo "  its log:    $log -f"
    echo "  settings:   $toml, then $ctl reload qubix-worker"
    [ "$user" = no ] || hands_over ||
        echo "  scripts:    are not offered; why, and how they can be: $(doctor) --allow script"
    [ "$user" = no ] || lingers ||
        echo "  log out:    it ends then; to keep it running: sudo loginctl enable-linger $whom"
}

# Whether your systemd was given what limits a script, to hand it on to the service.
hands_over() {
    local given
    given=$(cat "/sys/fs/cgroup/user.slice/user-$(id -u).slice/user@$(id -u).service/cgroup.controllers" 2>/dev/null)
    [[ " $given " == *' memory '* && " $given " == *' pids '* ]]
}

lingers() { [ -e "/var/lib/systemd/linger/$(id -un)" ]; }

uninstall() {
    [ -e "$manifest" ] || [ "$purge" = yes ] || fail "nothing is installed below $prefix" \
        'say the --prefix, or --user, that it was installed with'
    echo "Stops the service (running jobs may finish) and removes what was installed below $prefix, and $unit."
    if [ "$purge" = yes ]; then
        echo "Removes its settings and its state too: $config, $token, $state."
    else
        echo "Keeps $config and $state, which --purge removes."
    fi
    [ "$dry_run" = no ] || return 0
    ctl --quiet disable --now qubix-worker 2>/dev/null || true
    # First, as folders go only when they are empty.
    [ "$purge" = no ] || remove_state
    if [ -e "$manifest" ]; then
        tac "$manifest" >"$scratch/installed"
    else
        : >"$scratch/installed"
    fi
    while read -r path; do
        if [ -d "$path" ]; then
            rmdir --ignore-fail-on-non-empty "$path"
        else
            rm -f "$path"
        fi
    done <"$scratch/installed"
    ctl daemon-reload
    echo 'Removed.'
    if [ "$user" = yes ] && [ -e "/var/lib/systemd/linger/$(id -un)" ]; then
        echo 'Your services still run while you are logged out; if nothing else needs that: loginctl disable-linger'
    fi
}

remove_state() {
    rm -rf "$config" "$state" "$unit.d"
    rm -f "$token"
    rmdir --ignore-fail-on-non-empty "$(dirname "$state")" 2>/dev/null || true
    if [ "$user" = no ]; then
        rmdir --ignore-fail-on-non-empty "$(dirname "$token")" 2>/dev/null || true
        userdel qubix-worker 2>/dev/null || true
    fi
}

arguments=$*
parse "$@"
settle
check_root
check_systemd
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [ "$mode" = uninstall ]; then
    uninstall
    exit
fi
check_package
check_settings
check_token
check_tools
plan
if [ "$dry_run" = yes ]; then
    echo 'Nothing was done (--dry-run).'
    exit
fi
build
try
install_all
start
await_registration
