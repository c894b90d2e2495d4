version "$(git --version)"
export GIT_SSH_COMMAND="$SSH" GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
who="-c user.name=t -c user.email=t@example.com"
git init -q "$WORK/a"; cp "$BIG" "$WORK/a/big"; cd "$WORK/a"; git add big; git $who commit -qm one
$SSH "$USER_@$ADDR" git init -q --bare repo.git
git push -q "$USER_@$ADDR:repo.git" HEAD:refs/heads/main || die push; ok push
git clone -q -b main "ssh://$USER_@$ADDR$FAR/repo.git" "$WORK/b"; same clone "$BIG" "$WORK/b/big"
echo two >two; git add two; git $who commit -qm two; git push -q "$USER_@$ADDR:repo.git" HEAD:refs/heads/main
cd "$WORK/b"; git pull -q; is pull "$(cat two)" two
GIT_TRACE_PACKET=1 git ls-remote -q origin 2>&1 >/dev/null | grep -q 'version 2' || die 'protocol 2 (GIT_PROTOCOL)'; ok 'protocol 2 (GIT_PROTOCOL)'
