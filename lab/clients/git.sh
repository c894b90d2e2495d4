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
# db is a git host for guest: the rule's command is git-shell, whatever is asked for.
git init -q --bare "$WORK/c.git"; $SSH "guest@$DB" "git-upload-pack 'none'" >/dev/null 2>"$WORK/err" && die 'a repository that is not there' || true
grep -q "does not appear to be a git repository" "$WORK/err" || die "forced command: $(cat "$WORK/err")"
cp -r "$WORK/c.git" "$GITHOME/c.git"; chown -R guest: "$GITHOME/c.git" 2>/dev/null || chown -R "$(stat -c %u:%g "$GITHOME")" "$GITHOME/c.git"
cd "$WORK/a"; git push -q "guest@$DB:c.git" HEAD:refs/heads/main || die 'forced command: push'
git clone -q -b main "guest@$DB:c.git" "$WORK/d"; same 'forced command: push and clone' "$BIG" "$WORK/d/big"
GIT_TRACE_PACKET=1 git ls-remote -q "guest@$DB:c.git" 2>&1 >/dev/null | grep -q 'version 2' || die 'forced command: protocol 2'; ok 'forced command: protocol 2'
for asked in 'id' 'sh' "git-upload-pack 'c.git'; id" ''; do
	[ "$(status $SSH "guest@$DB" "$asked" </dev/null)" != 0 ] || die "forced command: [$asked] is run"
	! $SSH "guest@$DB" "$asked" </dev/null 2>/dev/null | grep -q uid= || die "forced command: [$asked] is run"
done
ok 'forced command: nothing but git'
printf 'ls\n' | sftp -q -F none -o BatchMode=yes -o UserKnownHostsFile="$KNOWN" -b - "guest@$DB" >/dev/null 2>&1 && die 'forced command: sftp' || ok 'forced command: no sftp'
