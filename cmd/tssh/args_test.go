package main

import (
	"reflect"
	"testing"
	"tssh/ssh"
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
			c.forwards = []forward{
				{kind: 'L', listen: ssh.Endpoint{Host: "localhost", Port: 8080}, to: ssh.Endpoint{Host: "fd7a::2", Port: 80}, own: true},
				{kind: 'D', listen: ssh.Endpoint{Host: "localhost", Port: 1080}, own: true}, {kind: 'R', to: ssh.Endpoint{Host: "db", Port: 1}}}
		})},
		{[]string{"--socket", "/s", "status", "--json"}, command{port: 22, escape: '~', socket: "/s", verb: "status", args: []string{"--json"}}},
		{[]string{"status", "--socket=/s"}, command{port: 22, escape: '~', socket: "/s", verb: "status"}},
		{[]string{"-fNi", "key", "-o", "Ciphers=x", "web"}, with(func(c *command) { c.background, c.noInput, c.noCommand = true, true, true })},
		{[]string{"-o", "SessionType=none", "-o", "StdinNull=yes", "web"}, with(func(c *command) { c.noCommand, c.noInput = true, true })},
		{[]string{"x@status"}, with(func(c *command) { c.user, c.host = "x", "status" })},
		{[]string{"--", "status"}, with(func(c *command) { c.host = "status" })},
	} {
		got, err := parse(c.args)
		if err != nil || !reflect.DeepEqual(*got, c.want) {
			t.Errorf("%q: %+v %v\nwant %+v", c.args, got, err, c.want)
		}
	}
	for _, bad := range [][]string{{}, {"-x"}, {"user@"}, {"-o", "Port=x", "web"}, {"-L", "1:2", "web"}, {"-L", "0:a:1", "web"}, {"-D", "0", "web"}, {"a@-x"}, {"--socket"}, {"-f", "web"}, {"-F", "x", "web"}, {"-S", "x", "web"}, {"-o", "RemoteCommand=x", "web"}} {
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

func TestParseForward(t *testing.T) {
	tcp := func(h string, p uint16) ssh.Endpoint { return ssh.Endpoint{Host: h, Port: p} }
	sock := func(p string) ssh.Endpoint { return ssh.Endpoint{Path: p} }
	for s, want := range map[string]forward{
		"L80:db:5432":          {kind: 'L', listen: tcp("localhost", 80), to: tcp("db", 5432), own: true},
		"L*:80:[::1]:1":        {kind: 'L', listen: tcp("", 80), to: tcp("::1", 1)},
		"L[::1]:80:db:1":       {kind: 'L', listen: tcp("::1", 80), to: tcp("db", 1)},
		"L80:/run/x":           {kind: 'L', listen: tcp("localhost", 80), to: sock("/run/x"), own: true},
		"L127.0.0.2:80:/run/x": {kind: 'L', listen: tcp("127.0.0.2", 80), to: sock("/run/x")},
		"L./a:/run/x":          {kind: 'L', listen: sock("./a"), to: sock("/run/x")},
		"L/a:db:1":             {kind: 'L', listen: sock("/a"), to: tcp("db", 1)},
		"R0:db:1":              {kind: 'R', listen: tcp("localhost", 0), to: tcp("db", 1), own: true},
		"R/a:/b":               {kind: 'R', listen: sock("/a"), to: sock("/b")},
		"R1080":                {kind: 'R', listen: tcp("localhost", 1080), own: true},
		"R*:1080":              {kind: 'R', listen: tcp("", 1080)},
		"D[::1]:1080":          {kind: 'D', listen: tcp("::1", 1080)},
	} {
		if got, err := parseForward(s[0], s[1:]); err != nil || got != want {
			t.Errorf("%s: %+v %v", s, got, err)
		}
	}
	for _, s := range []string{"L80", "L80:db", "L0:db:1", "L80:db:0", "L80::1", "Lx:db:1", "L1:2:3:4:5", "D", "D1:2:3", "D/a", "D0", "R", "Rx", "L", "L[::1:80:db:1", "R70000:db:1"} {
		if got, err := parseForward(s[0], s[1:]); err == nil {
			t.Errorf("%s was read as %+v", s, got)
		}
	}
}
