version "$(mosh --version | sed -n '1s/ \[.*//p')"
export LC_ALL=C.UTF-8 TERM=xterm
out=$(pty "mosh --ssh='$SSH' $USER_@$ADDR -- sh -c 'echo in:\$(id -un):\$SSH_CONNECTION; stty size; sleep 1'" | tr -d '\033')
echo "$out" | grep -q "in:$USER_:" || die "session: $out"
ok 'session over UDP to the address of SSH_CONNECTION'
