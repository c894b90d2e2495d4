# OpenSSH's ProxyJump through web: to another host of the mesh, which sees web and not the
# laptop, and to a host outside of the mesh that has a stock sshd.
version "$(ssh -V 2>&1 | cut -d, -f1), ProxyJump"
cd "$WORK"
cp "$KNOWN" known
# What stands on the command line does not reach the jump; the configuration does.
cat >config <<IN
BatchMode yes
UserKnownHostsFile $WORK/known
StrictHostKeyChecking accept-new
ConnectTimeout 15
IdentitiesOnly yes
IdentityFile $KEY
IN
J="-F $WORK/config -J $USER_@$ADDR"
is '-J to a host of the mesh' "$(ssh $J $USER_@$DB 'echo $TSSH_NODE; exit 7' || echo $?)" 'web
7'
is '-J to a stock sshd outside of the mesh' "$(ssh $J $USER_@$OLD 'id -un; exit 5' || echo $?)" "$USER_
5"
is '-J, half-close' "$(printf 'b\na\n' | ssh $J $USER_@$OLD 'sort; echo done' | tr '\n' ' ')" 'a b done '
ssh $J $USER_@$OLD cat <"$BIN" >bin; same '-J, binary safety' "$BIN" bin
out=$(pty "ssh $J -tt $USER_@$DB 'stty size; tty'"); echo "$out" | grep -q '^33 111$' || die "-J, pty: $out"; ok '-J, pty'
scp -q $J "$BIG" $USER_@$OLD:by-jump; scp -q $J $USER_@$OLD:by-jump back; same 'scp through -J, both ways' "$BIG" back
is 'ProxyCommand ssh -W' "$(ssh -F config -o ProxyCommand="ssh -F config -W %h:%p $USER_@$ADDR" $USER_@$OLD echo in)" in
