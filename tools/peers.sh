#!/bin/sh
# Install the programs of others that tests and benchmarks drive: clients, servers and libraries; and a C compiler with
# Python's headers, so that the tests run on both builds of the relay engine.
#
#   tools/peers.sh            what interop tests drive: system packages by apt-get, node's `socks` by npm
#   tools/peers.sh system     the system packages of these only; this part needs root
#   tools/peers.sh bench      the proxies that `make bench` measures tabi beside; needs root where one is missing
#
# What is there already is left as it is, so a second run needs neither root nor the network.
# No service is started and none that this script brings is left enabled for the next boot: the tests start what
# they need themselves, on loopback ports of their own, and end it again.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
node_dir=$root/tests/interop/node
policy=/usr/sbin/policy-rc.d
saved=$policy.before-tabi
marker='put here by tabi, make peers'
what=${1-all}

say() { printf 'peers: %s\n' "$*"; }
die() {
    printf 'peers: %s\n' "$*" >&2
    exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

wanted() { if [ "$what" = bench ]; then wanted_by_bench; else wanted_by_tests; fi; }

# One line per need: the Debian package, then the command or file whose presence means "we have it", or `-` where
# only dpkg can tell. Not dpkg for all of them: node or java may well come from elsewhere.
wanted_by_tests() {
    cat <<'LIST'
curl curl
netcat-openbsd nc.openbsd
ncat ncat
socat socat
proxychains4 proxychains4
tsocks tsocks
dante-client socksify
dante-server /usr/sbin/danted
openssh-client ssh
openssh-server /usr/sbin/sshd
git git
nodejs node
npm npm
default-jdk-headless javac
golang-go go
golang-golang-x-net-dev /usr/share/gocode/src/golang.org/x/net/proxy
microsocks microsocks
tinyproxy-bin tinyproxy
iproute2 ip
nftables nft
bind9-dnsutils dig
tcpdump tcpdump
nmap nmap
python3-venv -
build-essential gcc
python3-dev -
tnftp tnftp
zsh zsh
fish fish
vsftpd /usr/sbin/vsftpd
LIST
}

# hev-socks5-server and 3proxy are not in Debian: `make bench` is told where they are (HEV=…, THREEPROXY=…).
wanted_by_bench() {
    cat <<'LIST'
microsocks microsocks
dante-server /usr/sbin/danted
shadowsocks-libev ss-local
haproxy haproxy
LIST
}

present() {
    case $2 in
        -) [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ] ;;
        /*) [ -e "$2" ] ;;
        *) has "$2" || [ -x "/usr/sbin/$2" ] ;;
    esac
}

# A second run beside this one would put the policy file back too early. This very file is the lock.
one_at_a_time() {
    exec 9<"$root/tools/peers.sh"
    if has flock; then flock 9; fi
}

missing_packages() {
    wanted | while read -r package sign; do
        present "$package" "$sign" || printf '%s ' "$package"
    done
}

# --- services stay down -----------------------------------------------------------------------------------------

restore_policy() {
    if [ -e "$saved" ] || [ -L "$saved" ]; then
        mv -f "$saved" "$policy"
    elif [ -f "$policy" ] && grep -q "$marker" "$policy"; then
        rm -f "$policy"
    fi
}

# invoke-rc.d and deb-systemd-invoke ask this file before they start anything; 101 means "not allowed".
forbid_services() {
    trap restore_policy EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    if [ -e "$policy" ] || [ -L "$policy" ]; then mv "$policy" "$saved"; fi
    printf '#!/bin/sh\n# %s; taken away when it ends\nexit 101\n' "$marker" >"$policy"
    chmod 755 "$policy"
}

# policy-rc.d holds a service back today, yet its package has enabled it for the next boot: take that back.
# Only for packages installed by this very run: a service that the user had is not ours to touch.
disable_services() {
    for package in "$@"; do
        case $package in
            dante-server) units=danted ;;
            haproxy | shadowsocks-libev) units=$package ;;
            openssh-server) units=ssh ;;
            vsftpd) units=vsftpd ;;
            *) continue ;;
        esac
        if has systemctl; then
            systemctl --quiet disable "$units" >/dev/null 2>&1 || say "note: $units could not be disabled for the next boot"
        elif has update-rc.d && [ -e "/etc/init.d/$units" ]; then
            update-rc.d "$units" disable >/dev/null 2>&1 || say "note: $units could not be disabled for the next boot"
        fi
    done
}

# --- the two halves ---------------------------------------------------------------------------------------------

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold -o DPkg::Lock::Timeout=300 "$@"
}

refresh_lists() {
    for pause in 2 5 10; do
        if apt-get update -o DPkg::Lock::Timeout=300 && [ -n "$(apt-cache search --names-only '^microsocks$')" ]; then
            return 0
        fi
        say "apt-get update failed, again in $pause s"
        sleep "$pause"
    done
    say "apt-get update failed; going on with the lists that are here"
}

install_system() {
    if [ "$(id -u)" -eq 0 ]; then restore_policy; fi # a run that was killed may have left ours behind
    packages=$(missing_packages)
    if [ -z "$packages" ]; then
        say "system programs: all here"
        return 0
    fi
    has apt-get || die "apt-get is not here. Install by this system's own means: $packages"
    say "installing: $packages"
    forbid_services
    refresh_lists
    # shellcheck disable=SC2086  # a list of package names, meant to be split
    apt_install $packages || die "apt-get could not install them. By hand: apt-get install --no-install-recommends $packages"
    # shellcheck disable=SC2086
    disable_services $packages
    restore_policy
    trap - EXIT INT TERM HUP
    hash -r
    packages=$(missing_packages)
    [ -z "$packages" ] || die "apt-get was content, yet these are not to be found: $packages"
}

system_as_root() {
    packages=$(missing_packages)
    if [ -z "$packages" ] || [ "$(id -u)" -eq 0 ]; then
        install_system
    elif has sudo; then
        say "system packages need root; asking sudo"
        sudo -- "$root/tools/peers.sh" "$1"
    else
        die "root is needed. As root: apt-get install --no-install-recommends $packages
(or, with the services kept from starting: $root/tools/peers.sh $1)"
    fi
}

# npm ci installs exactly what package-lock.json names, checked by hash. It empties node_modules first, so an
# installation cut short is repaired; the stamp keeps a second run away from the network.
install_node_modules() {
    stamp=$node_dir/node_modules/.installed
    if [ -f "$stamp" ] && cmp -s "$stamp" "$node_dir/package-lock.json"; then
        say "node modules: all here"
        return 0
    fi
    say "installing node's socks into tests/interop/node/node_modules"
    (cd "$node_dir" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) ||
        die "npm could not install. By hand: cd $node_dir && npm ci"
    cp "$node_dir/package-lock.json" "$stamp"
}

case $what in
    all)
        if [ "$(id -u)" -eq 0 ]; then one_at_a_time; fi
        system_as_root system
        install_node_modules
        ;;
    bench)
        if [ "$(id -u)" -eq 0 ]; then one_at_a_time; fi
        system_as_root bench
        ;;
    system)
        one_at_a_time
        install_system
        ;;
    *) die "usage: tools/peers.sh [system|bench]" ;;
esac
say "ready"
