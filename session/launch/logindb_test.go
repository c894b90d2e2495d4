package launch

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// script is a program that stands in for one of the host's.
func script(t *testing.T, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestDatabases: what the programs of the databases are given, by stand-ins for them.
func TestDatabases(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	d := &Databases{Wtmp: at("wtmp.db"), Last: at("lastlog2.db"), WtmpTool: at("wtmpdb"), LastTool: at("lastlog2")}
	l := Login{User: "alice", UID: 1007, Line: "pts/3", Host: "laptop", Addr: netip.MustParseAddr("100.64.0.2"), PID: 77}
	since := time.Unix(1700000000, 0)
	ctx := context.Background()
	script(t, d.WtmpTool, "touch "+at("ran"))
	script(t, d.LastTool, "touch "+at("ran"))
	for _, err := range []error{d.Opened(ctx, l, since), d.Closed(ctx, l, since, since)} {
		if err != nil {
			t.Error(err)
		}
	}
	if _, kept := d.LastOf(ctx, "alice"); kept {
		t.Error("a database that is not there was read")
	}
	if _, err := os.Stat(at("ran")); err == nil {
		t.Fatal("a program was run for a database that is not there")
	}
	for _, name := range []string{d.Wtmp, d.Last} {
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	script(t, d.WtmpTool, `echo "$*" >`+at("args.w")+`; cat "$4" >`+at("got.w"))
	script(t, d.LastTool, `case "$3" in --import) echo "$*" >>`+at("args.l")+`; cat "$4" >`+at("got.l")+`; date >>`+d.Last+`;; *) echo x >>`+at("reads")+`
echo 'Username         Port     From                                       Latest '
echo 'alice            pts/3    laptop                                     Tue Nov 14 22:13:20 +0000 2023'
echo 'a-very-very-long-name pts/3    fd7a::1                                    Tue Nov 14 22:13:20 +0000 2023'
echo 'bob              tty1                                                Tue Nov  7 22:13:20 +0100 2023'
echo 'eve              pts/9    x                                          **Never logged in**';; esac`)
	if err := d.Closed(ctx, l, since, since.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(at("got.w"))
	if err != nil || len(b) != 2*utmpSize {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	for i, want := range []struct {
		kind uint16
		at   int64
	}{{utmpUser, since.Unix()}, {utmpDead, since.Unix() + 60}} {
		r := b[i*utmpSize:]
		if binary.LittleEndian.Uint16(r) != want.kind || int64(binary.LittleEndian.Uint32(r[340:])) != want.at || !strings.HasPrefix(string(r[8:]), "pts/3\x00") {
			t.Errorf("record %d: %q", i, r[:utmpSize])
		}
	}
	if err := d.Opened(ctx, l, since); err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(at("got.l")); err != nil || len(b) != 1008*lastlogSize || strings.Trim(string(b[:1007*lastlogSize]), "\x00") != "" || int64(binary.LittleEndian.Uint32(b[1007*lastlogSize:])) != since.Unix() {
		t.Fatalf("lastlog of %d bytes, %v", len(b), err)
	}
	for file, want := range map[string]string{"args.w": "import --file " + d.Wtmp + " /proc/self/fd/3\n", "args.l": "--database " + d.Last + " --import /proc/self/fd/3\n"} {
		if got, _ := os.ReadFile(at(file)); string(got) != want {
			t.Errorf("%s: %q", file, got)
		}
	}
	when := since.Local().Format("Mon Jan _2 15:04:05 2006")
	for name, want := range map[string]string{"alice": when + " from laptop", "a-very-very-long-name": when + " from fd7a::1", "bob": time.Date(2023, 11, 7, 21, 13, 20, 0, time.UTC).Local().Format("Mon Jan _2 15:04:05 2006"), "eve": "", "nobody": ""} {
		if got, kept := d.LastOf(ctx, name); got != want || !kept {
			t.Errorf("%s: %q", name, got)
		}
	}
	if reads, _ := os.ReadFile(at("reads")); string(reads) != "x\n" {
		t.Errorf("the table was read %d times for one change", len(reads)/2)
	}
	// What fails, or does not end, is an error within the time.
	script(t, d.WtmpTool, "echo it is broken >&2; exit 1")
	if err := d.Closed(ctx, l, since, since); err == nil || !strings.Contains(err.Error(), "it is broken") {
		t.Errorf("%v", err)
	}
	script(t, d.WtmpTool, "exec sleep 100")
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := d.Closed(short, l, since, since); err == nil {
		t.Error("no error of a program that does not end")
	}
	d.busy.Store(maxDatabases)
	if err := d.Closed(ctx, l, since, since); err != errDatabasesBusy {
		t.Errorf("%v", err)
	}
}

// TestDatabasesOfTheHost uses the real programs, where there are any.
func TestDatabasesOfTheHost(t *testing.T) {
	wtmpdb, err1 := exec.LookPath("wtmpdb")
	lastlog2, err2 := exec.LookPath("lastlog2")
	if err1 != nil || err2 != nil {
		t.Skip("no wtmpdb and lastlog2 on this machine")
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(me.Uid)
	dir := t.TempDir()
	d := &Databases{Wtmp: filepath.Join(dir, "w.db"), Last: filepath.Join(dir, "l.db"), WtmpTool: wtmpdb, LastTool: lastlog2}
	for _, name := range []string{d.Wtmp, d.Last} {
		if err := os.WriteFile(name, nil, 0o644); err != nil { // an empty file is an empty database
			t.Fatal(err)
		}
	}
	l := Login{User: me.Username, UID: uint32(uid), Line: "pts/3", Host: "laptop", PID: 77}
	since := time.Now().Add(-time.Hour)
	ctx := context.Background()
	for range 2 {
		for _, err := range []error{d.Opened(ctx, l, since), d.Closed(ctx, l, since, since.Add(30*time.Minute))} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, _ := d.LastOf(ctx, me.Username); got != lastWords(since.Truncate(time.Second), "laptop") {
		t.Errorf("last: %q", got)
	}
	out, err := exec.Command(wtmpdb, "last", "-f", d.Wtmp).CombinedOutput()
	if want := fmt.Sprintf("%-8s pts/3        laptop", me.Username); err != nil || strings.Count(string(out), want) != 2 || strings.Count(string(out), "(00:30)") != 2 {
		t.Errorf("%s %v", out, err)
	}
}
