package policy

import (
	"strings"
	"testing"
	"time"
)

// ruleWith is a policy of one rule with more fields, and the decision of alice's login.
func ruleWith(t *testing.T, fields string, now time.Time) Decision {
	t.Helper()
	p := mustParse(t, []byte(`{"groups": {"group:sec": ["sec@example.com"]}, "hosts": {"office": "192.0.2.0/24"}, "tagOwners": {"tag:web": []},
		"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
		"ssh": [{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"]`+fields+`}]}`))
	return Evaluate(p, Request{Ask: AskLogin, Src: alice, Dst: web, User: "deploy", UID: 1000, Now: now})
}

func TestAllows(t *testing.T) {
	const command, commands = `, "command": "/usr/bin/backup --to x"`, `, "commands": ["systemctl restart nginx", "git-upload-pack *", "rsync --server ...", "cat /srv/*", "echo 'two words'", "df"]`
	permit := func(s string) string { return `, "permit": {` + s + `}` }
	for _, c := range []struct {
		fields, asks string // of asks one a word: KIND or KIND=TARGET, - before what is denied; _ is a blank
	}{
		{"", "pty shell exec=ls sftp sftp=write local=db:5432 local=[fd7a::1]:22 remote=localhost:0 remote=127.0.0.1:8080 remote=[::1]:80 unix=/run/x agent -x11 -subsystem=netconf"},
		{"", "-local=db -local=db:0 -local=:22 -local=db:70000 -local=db:+22 -remote=:8080 -remote=*:8080 -remote=0.0.0.0:80 -remote=192.0.2.1:80 -remote=[::]:80 -unix=run/x -unix=/run/../x -unix= -sftp=x"},
		{permit(""), "-pty -shell -exec=ls -sftp -local=db:5432 -remote=localhost:0 -unix=/run/x -agent -x11"},
		{permit(`"pty": true, "shell": true, "x11": true`), "pty shell x11 -exec=ls -sftp -agent"},
		{permit(`"sftp": "read"`), "sftp sftp=read -sftp=write -shell -exec=scp"},
		{permit(`"sftp": "none"`), "-sftp"},
		{permit(`"forwardLocal": ["db.internal:5432", "*.corp:80-443,8080", "10.0.0.0/8:22", "office:443", "[fd7a::]/16:*", "localhost:3000"]`),
			"local=db.internal:5432 local=DB.Internal.:5432 -local=db.internal:5433 -local=xdb.internal:5432 local=a.corp:443 local=a.b.corp:8080 -local=corp:80 -local=.corp:80 -local=acorp:80 " +
				"local=10.1.2.3:22 -local=10.1.2.3:23 -local=11.1.2.3:22 local=[::ffff:10.1.2.3]:22 -local=10.1.2:22 local=192.0.2.9:443 local=office:443 -local=192.0.3.9:443 local=[fd7a::9]:1 -local=[fd7b::9]:1 " +
				"local=localhost:3000 local=127.0.0.1:3000 local=[::1]:3000 -local=localhost:3001 -local=[fe80::1%eth0]:22 -local=2130706433:3000 -remote=localhost:3000"},
		{permit(`"forwardRemote": ["*:8000-8999"]`), "remote=:8080 remote=*:8080 remote=0.0.0.0:8999 remote=localhost:8000 -remote=:0 -remote=:80 -local=x:8080"},
		{permit(`"forwardRemote": ["*"]`), "remote=:0 remote=0.0.0.0:1"},
		{permit(`"forwardRemote": ["192.0.2.0/24:*"]`), "remote=192.0.2.1:0 -remote=:80 -remote=0.0.0.0:80"},
		{permit(`"forwardUnix": ["/run/docker.sock", "/run/user/*/bus"]`), "unix=/run/docker.sock unix=/run/user/1000/bus -unix=/run/user/1000/x/bus -unix=/run/user/../bus -unix=/run//docker.sock -unix=/run/docker.sock/"},
		{command, "pty shell exec=anything -sftp -local=db:1 -agent -unix=/x"},
		{command + permit(`"exec": true, "agent": true`), "exec=rm agent -shell -pty"},
		{commands, "pty -shell -sftp -agent exec=systemctl_restart_nginx -exec=systemctl_restart_nginx_x -exec=systemctl_restart__nginx -exec=systemctl_restart_nginx; -exec= -exec=df_ exec=df"},
		{commands, "exec=git-upload-pack_'/srv/a_b.git' exec=git-upload-pack_/srv/a.git -exec=git-upload-pack -exec=git-upload-pack_a_b -exec=git-upload-pack_--exec=x -exec=git-upload-pack_$(id) " +
			"-exec=git-upload-pack_'a'b -exec=git-upload-pack_a;id -exec=git-upload-pack_'a -exec=git-upload-pack_'' -exec=git-upload-pack_a|id -exec=git-upload-pack_`id` -exec=git-upload-pack_a&"},
		{commands, "exec=rsync_--server_-vlogDtpre.iLsfxC_._/srv/ exec=rsync_--server -exec=rsync_-e -exec=rsync_--server_a;b -exec=rsync_--server_$HOME -exec=rsync_--server_~"},
		{commands, "exec=cat_/srv/a.txt exec=cat_'/srv/a.txt' -exec=cat_/srv/../etc -exec=cat_/srv/a/b -exec=cat_/srv/.. -exec=cat_/srv/ -exec=cat_/srv/* exec=echo_'two_words' -exec=echo_two_words"},
	} {
		d := ruleWith(t, c.fields, time.Time{})
		for _, w := range strings.Fields(c.asks) {
			w, no := strings.CutPrefix(w, "-")
			kind, target, _ := strings.Cut(w, "=")
			ask := map[string]Ask{"pty": AskPTY, "shell": AskShell, "exec": AskExec, "sftp": AskSFTP, "subsystem": AskSubsystem, "local": AskForwardLocal,
				"remote": AskForwardRemote, "unix": AskForwardUnix, "agent": AskAgent, "x11": AskX11}[kind]
			target = strings.ReplaceAll(target, "_", " ")
			ok, say := d.Allows(ask, target)
			if ask == AskNothing || ok == no || (say == "") == no {
				t.Errorf("%s: %s: %v %q", c.fields, w, ok, say)
			}
			if n := testing.AllocsPerRun(3, func() { d.Allows(ask, target) }); n != 0 {
				t.Errorf("%s: %s: %v allocations", c.fields, w, n)
			}
		}
	}
	if ok, _ := (Decision{}).Allows(AskPTY, ""); ok {
		t.Error("the zero decision allows")
	}
	if ok, _ := (Decision{Verdict: Accept}).Allows(AskPTY, ""); ok {
		t.Error("a decision of no rule allows")
	}
}

func TestHours(t *testing.T) {
	at := func(s string) time.Time {
		d, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	const office, night = `, "hours": ["Mon-Fri 07:00-19:00 Europe/Oslo"]`, `, "hours": ["Fri,Sat 22:00-06:00 Europe/Oslo", "Sat 06:00-08:00 Europe/Oslo"]`
	for _, c := range []struct{ fields, now, ends string }{ // ends: "" when the rule does not count, "-" for never
		{office, "2026-07-01T05:00:00Z", "2026-07-01T17:00:00Z"}, // summer time
		{office, "2026-07-01T04:59:59Z", ""},
		{office, "2026-07-01T17:00:00Z", ""},
		{office, "2026-01-07T06:00:00Z", "2026-01-07T18:00:00Z"}, // winter time
		{office, "2026-07-04T10:00:00Z", ""},                     // a Saturday
		{night, "2026-07-03T21:00:00Z", "2026-07-04T06:00:00Z"},  // Friday night, and the window that follows
		{night, "2026-07-05T03:00:00Z", "2026-07-05T04:00:00Z"},
		{night, "2026-07-04T07:00:00Z", ""},
		{night, "2026-07-06T01:00:00Z", ""},
		{night, "2026-10-24T21:00:00Z", "2026-10-25T05:00:00Z"}, // the clock is turned back that night
		{`, "hours": ["Mon-Sun 00:00-24:00 UTC"]`, "2026-07-06T01:00:00Z", "-"},
		{`, "hours": ["Mon-Wed 00:00-24:00 UTC"]`, "2026-07-06T01:00:00Z", "2026-07-09T00:00:00Z"},
		{`, "until": "2026-07-06T02:00:00+01:00"`, "2026-07-06T00:00:00Z", "2026-07-06T01:00:00Z"},
		{`, "until": "2026-07-06T02:00:00+01:00"`, "2026-07-06T01:00:00Z", ""},
		{office + `, "until": "2026-07-01T12:00:00Z"`, "2026-07-01T10:00:00Z", "2026-07-01T12:00:00Z"},
		{"", "2026-07-01T10:00:00Z", "-"},
	} {
		d := ruleWith(t, c.fields, at(c.now))
		if c.ends == "" {
			if d.Verdict != Deny || !strings.HasPrefix(d.Reason, "no-hours") || !strings.HasSuffix(d.Sentence(Request{}), "at this time") {
				t.Errorf("%s at %s: %+v", c.fields, c.now, d)
			}
			continue
		}
		if d.Verdict != Accept || c.ends == "-" && !d.Ends.IsZero() || c.ends != "-" && !d.Ends.Equal(at(c.ends)) {
			t.Errorf("%s at %s: %v, ends %v", c.fields, c.now, d.Verdict, d.Ends)
		}
	}
	if d := ruleWith(t, office, time.Time{}); d.Verdict != Deny {
		t.Error("a rule with hours counts where the time is not known")
	}
}

// TestTerms: what is written arrives in the decision.
func TestTerms(t *testing.T) {
	if got := ruleWith(t, "", time.Time{}).Terms(); got != (Terms{SFTP: FilesWrite, RecordDefault: true}) {
		t.Errorf("no fields: %+v", got)
	}
	got := ruleWith(t, `, "permit": {"sftp": "read"}, "sessionLimit": "8h", "idleLimit": "15m", "sessionsAtOnce": 3, "record": "required", "onRecordFailure": "continue",
		"recordInput": true, "selfAttested": true, "loginMessage": "be careful"`, time.Time{}).Terms()
	want := Terms{SFTP: FilesRead, SessionLimit: 8 * time.Hour, IdleLimit: 15 * time.Minute, SessionsAtOnce: 3, RecordFailure: FailRefuse, RecordInput: true, SelfAttested: true, LoginMessage: "be careful"}
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if got := ruleWith(t, `, "breakGlass": true`, time.Time{}).Terms(); !got.BreakGlass || got.Record != RecordBestEffort || got.RecordFailure != FailRefuse {
		t.Errorf("break glass: %+v", got)
	}
	if got := (Decision{}).Terms(); got != (Terms{}) {
		t.Errorf("no decision: %+v", got)
	}
}

// TestFolder: what a folder for sftp may be, and that another one is another session.
func TestFolder(t *testing.T) {
	for text, ok := range map[string]bool{"/srv/files": true, "~": true, "~/in box": true, "/": false, "": false, "srv": false, "/srv/": false, "/srv/../etc": false, "/srv//x": false,
		"~root": false, "~/..": false, "~/": false, "/srv/a\nb": false, "/" + strings.Repeat("x", 1024): false} {
		if folder(text) != ok {
			t.Errorf("%q: %v", text, !ok)
		}
	}
	keys := map[string]bool{}
	for _, f := range []string{"", `, "sftpFolder": "/srv/a"`, `, "sftpFolder": "/srv/b"`} {
		d := ruleWith(t, `, "permit": {"sftp": "write"`+f+`}`, time.Time{})
		keys[d.Key()] = true
		if got := d.Terms().SFTPFolder; f != "" && !strings.Contains(f, `"`+got+`"`) || f == "" && got != "" {
			t.Errorf("%s: %q", f, got)
		}
	}
	if len(keys) != 3 {
		t.Errorf("the folder is not in the key: %v", keys)
	}
	if got := ruleWith(t, `, "permit": {"sftp": "read", "sftpFolder": "~/in"}`, time.Time{}).Words(); got != "with sftp read; sftp in ~/in" {
		t.Errorf("words %q", got)
	}
}

// TestWordsNameNobody: a person learns what holds for the session, not who else may do what.
func TestWordsNameNobody(t *testing.T) {
	d := ruleWith(t, `, "permit": {"shell": true, "pty": true}, "sessionLimit": "8h", "idleLimit": "15m", "recordInput": true, "watch": ["group:sec"], "end": ["sec@example.com"], "showWatchers": true`, time.Time{})
	const want = "with pty, shell; at most 8h; idle at most 15m; input recorded; watchers shown"
	if got := d.Words(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := ruleWith(t, "", time.Time{}).Words() + (Decision{}).Words(); got != "" {
		t.Errorf("without terms: %q", got)
	}
}

// TestOrderOfKinds: check, accept, request, break glass; and break glass alone when asked for.
func TestOrderOfKinds(t *testing.T) {
	rule := func(s string) string { return `{"src": ["alice@example.com"], "dst": ["tag:web"], ` + s + `},` }
	p := mustParse(t, []byte(`{"tagOwners": {"tag:web": []}, "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}], "ssh": [`+
		rule(`"action": "accept", "breakGlass": true, "users": ["root", "a", "b", "c", "d"]`)+
		rule(`"action": "request", "approvers": ["bob@example.com"], "users": ["root", "a", "b", "c"]`)+
		rule(`"action": "accept", "users": ["a", "b"]`)+
		rule(`"action": "check", "users": ["a"]`)+`]}`))
	for _, c := range []struct {
		user    LocalUser
		glass   bool
		rule    int
		verdict string
	}{{"a", false, 3, "check"}, {"b", false, 2, "accept"}, {"c", false, 1, "request"}, {"d", false, 0, "accept"}, {"a", true, 0, "accept"}, {"e", true, -1, "deny"}, {"root", false, 1, "request"}} {
		r := Request{Ask: AskLogin, Src: alice, Dst: web, User: c.user, UIDUnknown: true, BreakGlass: c.glass}
		d := Evaluate(p, r)
		if d.Verdict.String() != c.verdict || d.Rule != c.rule || d.Verdict == Approval && d.Say == "" {
			t.Errorf("%+v: %+v", c, d)
		}
		trace := Explain(p, r)
		decides := -1
		for _, s := range trace.Logins {
			if s.Decides {
				decides = s.Rule
			}
		}
		if decides != c.rule || trace.Verdict != c.verdict {
			t.Errorf("%+v: explained as %+v", c, trace)
		}
	}
}

// TestOverseers: who may watch, join and end when the rule names them.
func TestOverseers(t *testing.T) {
	p := mustParse(t, []byte(`{"groups": {"group:sec": ["sec@example.com"]}, "tagOwners": {"tag:web": []}, "acls": [], "ssh": [
		{"action": "accept", "src": ["alice@example.com"], "dst": ["tag:web"], "users": ["deploy"], "watch": ["group:sec"], "join": ["autogroup:admin"], "end": [], "showWatchers": true, "hours": ["Mon 00:00-01:00 UTC"]}]}`))
	person := func(l Login, r Role) Identity { return Identity{ID: string(l), Name: "x", User: l, Role: r} }
	sec, admin, auditor := person("sec@example.com", RoleMember), person("a@example.com", RoleAdmin), person("b@example.com", RoleAuditor)
	for _, c := range []struct {
		user                     LocalUser
		viewer                   Identity
		watch, join, end, itself bool
	}{
		{"deploy", sec, true, false, false, false},
		{"deploy", admin, false, true, false, false},
		{"deploy", auditor, false, false, false, false},
		{"deploy", alice, true, true, true, true},
		{"other", sec, false, false, false, false}, // no rule: the roles
		{"other", admin, true, false, true, false},
		{"other", auditor, true, false, false, false},
		{"deploy", web, false, false, false, false},
	} {
		for ask, want := range map[Ask]bool{AskWatch: c.watch, AskJoin: c.join, AskEnd: c.end} {
			d := Evaluate(p, Request{Ask: ask, Src: alice, Dst: web, User: c.user, UID: 1000, Viewer: c.viewer})
			if (d.Verdict == Accept) != want || (d.Say == "") != want {
				t.Errorf("%s as %s, ask %d: %+v", c.viewer.Who(), c.user, ask, d)
			}
			if named := want && c.user == "deploy"; d.Named != named { // its rule says showWatchers
				t.Errorf("%s as %s, ask %d: named %v", c.viewer.Who(), c.user, ask, d.Named)
			}
		}
	}
}
