#!/bin/sh
# What the machine must have for `make build` (and so the demo), `make test` (and so
# `make matrix`) or `make regress`. As root on Debian what is missing is installed; otherwise it is named
# with the command that installs it, and this fails.
set -eu
what=${1:-build}

missing=
pkgs=
need() { # command, Debian package
	command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || { missing="$missing $1"; pkgs="$pkgs $2"; }
}
python() { # module of the system's Python
	/usr/bin/python3 -c "import $1" >/dev/null 2>&1 || { missing="$missing python3-$1"; pkgs="$pkgs python3-$1"; }
}

command -v go >/dev/null 2>&1 || { echo 'tssh: Go 1.26 or newer is needed and not on the PATH: see go.dev/doc/install' >&2; exit 1; }
command -v npm >/dev/null 2>&1 || { echo 'tssh: Node.js 20 or newer with npm is needed and not on the PATH (the replay page is built with it)' >&2; exit 1; }
need getent libc-bin
need git git
if [ "$(id -u)" = 0 ]; then
	need ip iproute2
	need nsenter util-linux
fi
if [ "$what" != build ]; then
	need ssh openssh-client
	need sshd openssh-server
	need sftp openssh-client
	need rsync rsync
	need chromium chromium
	need ip iproute2
	need useradd passwd
	need nft nftables
	need iptables-nft-restore iptables
	need conntrack conntrack
	need iperf3 iperf3
	need setpriv util-linux
	need dbus-daemon dbus-daemon
	need dig bind9-dnsutils
	need curl curl
	need turnutils_stunclient coturn
	need stun stun-client
	need sshfs sshfs
	need plink putty-tools
	need dbclient dropbear-bin
	need lftp lftp
	need mosh mosh
	need script bsdutils
	need asciinema asciinema
	need ssh-audit ssh-audit
	need Xvfb xvfb
	need xauth xauth
	need xwininfo x11-utils
	need ansible-playbook ansible-core
	need javac default-jdk-headless
	[ -e /usr/share/java/jsch.jar ] || { missing="$missing jsch.jar"; pkgs="$pkgs libjsch-java"; }
	python paramiko
	python asyncssh
fi
if [ "$what" = regress ]; then
	[ -e /usr/lib/openssh/regress/test-exec.sh ] || { missing="$missing openssh-tests"; pkgs="$pkgs openssh-tests"; }
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "tssh: installing$missing" >&2
	export DEBIAN_FRONTEND=noninteractive
	# A freshly installed sshd must not start listening because of a test.
	policy=/usr/sbin/policy-rc.d
	made=
	if [ ! -e $policy ]; then printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && made=1; fi
	trap '[ -z "$made" ] || rm -f $policy' EXIT
	apt-get update -qq >&2
	# shellcheck disable=SC2086
	apt-get install -y -qq --no-install-recommends $pkgs >&2
	exit 0
fi
echo "tssh: missing on this machine:$missing" >&2
echo "tssh: hint: apt-get install$pkgs" >&2
exit 1
