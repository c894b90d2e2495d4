package main

import (
	"net/netip"
	"testing"

	"tssh/netnode/coord"
)

func TestEditorOf(t *testing.T) {
	session := []string{"PATH=/bin", "TSSH_USER=alice@example.com", "TSSH_NODE=laptop", "LOGNAME=root", "SSH_CONNECTION=100.64.0.1 5000 100.64.0.2 22"}
	want := coord.Editor{Login: "alice@example.com", Node: "laptop", Addr: netip.MustParseAddr("100.64.0.1"), Host: netip.MustParseAddr("100.64.0.2"), Account: "root"}
	if e, ok := editorOf(session); !ok || e != want {
		t.Errorf("%+v %v", e, ok)
	}
	for _, none := range [][]string{nil, {"LOGNAME=root", "SSH_CONNECTION=192.0.2.1 5000 192.0.2.2 22"}, {"TSSH_USER=tag:web", "TSSH_NODE=ci", "LOGNAME=root"}, {"TSSH_USER="}} {
		if e, ok := editorOf(none); ok {
			t.Errorf("%q is %+v", none, e)
		}
	}
}
