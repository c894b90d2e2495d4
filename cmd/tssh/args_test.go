package main

import (
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	base := command{port: 22, escape: '~', host: "web"}
	with := func(f func(*command)) command { c := base; f(&c); return c }
	for _, c := range []struct {
		args []string
		want command
	}{
		{[]string{"web"}, base},
		{[]string{"a@b@web"}, with(func(c *command) { c.user = "a@b" })},
		{[]string{"-l", "x", "a@web"}, with(func(c *command) { c.user = "x" })},
		{[]string{"web", "-l", "x", "ls", "-l"}, with(func(c *command) { c.user, c.remote = "x", "ls -l" })},
		{[]string{"web", "--", "-x"}, with(func(c *command) { c.remote = "-x" })},
		{[]string{"--", "web", "-x"}, with(func(c *command) { c.remote = "-x" })},
		{[]string{"-t", "web"}, with(func(c *command) { c.tty = ttyYes })},
		{[]string{"-tt", "web"}, with(func(c *command) { c.tty = ttyForce })},
		{[]string{"-T", "-t", "web"}, with(func(c *command) { c.tty = ttyYes })},
		{[]string{"-tT", "web"}, with(func(c *command) { c.tty = ttyNo })},
		{[]string{"-p2222", "-e", "none", "web"}, with(func(c *command) { c.port, c.escape = 2222, 0 })},
		{[]string{"-e", "^]", "web"}, with(func(c *command) { c.escape = 0x1d })},
		{[]string{"[fd7a::1]"}, with(func(c *command) { c.host = "fd7a::1" })},
		{[]string{"-L", "8080:[fd7a::2]:80", "-D", "1080", "-R", "*:0:db:1", "-N", "web"}, with(func(c *command) {
			c.noCommand = true
			c.forwards = []forward{{'L', "localhost:8080", "fd7a::2", 80}, {'D', "localhost:1080", "", 0}, {'R', ":0", "db", 1}}
		})},
		{[]string{"--socket", "/s", "status", "--json"}, command{port: 22, escape: '~', socket: "/s", verb: "status", args: []string{"--json"}}},
		{[]string{"status", "--socket=/s"}, command{port: 22, escape: '~', socket: "/s", verb: "status"}},
		{[]string{"x@status"}, with(func(c *command) { c.user, c.host = "x", "status" })},
		{[]string{"--", "status"}, with(func(c *command) { c.host = "status" })},
	} {
		got, err := parse(c.args)
		if err != nil || !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%q: %+v %v\nwant %+v", c.args, got, err, c.want)
		}
	}
	for _, bad := range [][]string{{}, {"-x"}, {"user@"}, {"-o", "Port=x", "web"}, {"-L", "1:2", "web"}, {"-L", "0:a:1", "web"}, {"-D", "0", "web"}, {"a@-x"}, {"--socket"}} {
		if got, err := parse(bad); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestSplitPlace(t *testing.T) {
	for s, want := range map[string]struct {
		target, path string
		remote       bool
	}{
		"web:x":             {"web", "x", true},
		"a@web:":            {"a@web", "", true},
		"web:a:b":           {"web", "a:b", true},
		"./a:b":             {"", "./a:b", false},
		"/a:b":              {"", "/a:b", false},
		"plain":             {"", "plain", false},
		":x":                {"", ":x", false},
		"[fd7a::1]:x":       {"[fd7a::1]", "x", true},
		"root@[fd7a::1]:/x": {"root@[fd7a::1]", "/x", true},
	} {
		if target, path, remote := splitPlace(s); target != want.target || path != want.path || remote != want.remote {
			t.Errorf("%q: %q %q %v", s, target, path, remote)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("-tt", "-l", "x@web", "cmd")
	f.Add("-L[::1]:1:[::2]:3", "-o", "EscapeChar=^", "web")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		got, err := parse([]string{a, b, c, d})
		if err == nil && got.verb == "" && (got.host == "" || got.host[0] == '-') {
			t.Fatalf("%q: host %q", []string{a, b, c, d}, got.host)
		}
	})
}
