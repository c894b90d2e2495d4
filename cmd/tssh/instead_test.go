package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"tssh/netnode/localapi"
)

// What somebody who is not let in may do instead reads as one choice.
func TestInstead(t *testing.T) {
	for _, c := range []struct {
		why  localapi.Why
		want string
	}{
		{localapi.Why{Host: "web", Instead: []string{"deploy"}}, "tssh deploy@web"},
		{localapi.Why{Host: "web", Instead: []string{"alice"}, Others: true}, "tssh alice@web or any other account but root"},
		{localapi.Why{Host: "web", Instead: []string{"a", "b", "c"}}, "tssh a@web, tssh b@web or tssh c@web"},
		{localapi.Why{Host: "web", Others: true}, "any other account but root"},
		{localapi.Why{Host: "web"}, "nothing lets you log in on web; ask whoever keeps the policy of this mesh"},
	} {
		if got := instead(c.why); got != c.want {
			t.Errorf("%+v: %q, not %q", c.why, got, c.want)
		}
	}
}

// `tssh sessions | head -1` ends without a word; other broken pipes do not.
func TestOutputThatNobodyReads(t *testing.T) {
	for name, want := range map[string]string{os.Stdout.Name(): "", "socket": "tssh: error: write socket: broken pipe\n"} {
		var out strings.Builder
		if status := complain(&out, fmt.Errorf("%w", &os.PathError{Op: "write", Path: name, Err: syscall.EPIPE})); status != 1 || out.String() != want {
			t.Errorf("%s: %d %q", name, status, out.String())
		}
	}
}
