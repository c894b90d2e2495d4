# ssh-audit judges what is offered: no "fail", the post-quantum key exchange first, the
# protection against Terrapin. It knows neither of the latter two yet, and warns of that.
version "$(ssh-audit --help 2>&1 | sed -n 's/.*# \(ssh-audit v[0-9.]*\),.*/\1/p' | head -1)"
ssh-audit -n "$ADDR" >"$WORK/out" 2>&1 || true
grep -q '(kex) curve25519-sha256 ' "$WORK/out" || die "no audit: $(cat "$WORK/out")"
! grep -q '\[fail\]' "$WORK/out" || die "$(grep '\[fail\]' "$WORK/out")"
ok 'no fail'
is 'post-quantum key exchange first' "$(sed -n 's/^(kex) \([^ ]*\) .*/\1/p' "$WORK/out" | head -1)" mlkem768x25519-sha256
grep -q kex-strict-s-v00@openssh.com "$WORK/out" || die 'strict key exchange'; ok 'strict key exchange'
