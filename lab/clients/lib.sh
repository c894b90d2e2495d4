# What the clients' scripts share. Each is run on the laptop by sh -eu with
#
#   ADDR  mesh address of web        USER_   account there         FAR   its home folder
#   WORK  an empty folder            BIG     a large random file   BIN   all bytes, and none in order
#   KNOWN known_hosts with web's keys
#
# The hosts of the lab share one file system, so what arrived can be compared at once. A
# line "ok WORDS" says what held; the first thing that does not hold ends the script.

ok() { echo "ok $*"; }

die() { echo "not ok $*" >&2; exit 1; }

# is WORDS GOT WANTED
is() { [ "$2" = "$3" ] || die "$1: got [$2], not [$3]"; ok "$1"; }

# same WORDS FILE FILE
same() { cmp "$2" "$3" >&2 || die "$1"; ok "$1"; }

# status COMMAND...: its exit status, printed
status() { if "$@" >/dev/null 2>&1; then echo 0; else echo $?; fi; }

# pty COMMAND...: run on a terminal of 33 lines of 111 columns, without carriage returns. Its
# input stays open and silent: an end of input would be typed into the terminal.
pty() {
	[ -p "$WORK/silence" ] || mkfifo "$WORK/silence"
	timeout 60 script -qefc "stty rows 33 cols 111; $*" /dev/null 0<>"$WORK/silence" | tr -d '\r'
}

version() { echo "version $*"; }

SSH="ssh -F none -o BatchMode=yes -o UserKnownHostsFile=$KNOWN -o ConnectTimeout=15"
