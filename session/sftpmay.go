package session

import (
	"syscall"

	"tssh/recording"
)

// allowed asks the policy before the first request that would change something: a session
// may be one for reading alone. Requests that are malformed are for their handlers to refuse.
func (v *sftpServer) allowed(typ byte, p payload) error {
	if !changesFiles(typ, p) {
		return nil
	}
	if v.changes == nil {
		say, ok := v.s.c.ask(v.s.id, "sftp", "write")
		if !ok {
			v.s.c.note(v.s.id, "refused", "sftp write: "+say)
		}
		v.changes = &ok
	}
	if *v.changes {
		return nil
	}
	f := recording.File{Op: "put"}
	switch op, named := deniedOps[typ]; {
	case named:
		f.Op = op
		f.Path, _ = v.path(&p)
	case typ == fxExtended:
		name, _ := p.str()
		if op, named := deniedExtensions[string(name)]; named {
			f.Op = op
			f.Path, _ = v.path(&p)
		}
	}
	return v.record(f, syscall.EACCES)
}

// deniedOps are the requests that begin with a path, as the recording calls them.
var deniedOps = map[byte]string{fxOpen: "put", fxSetstat: "setstat", fxRemove: "remove", fxMkdir: "mkdir", fxRmdir: "rmdir", fxRename: "rename", fxSymlink: "symlink"}

var deniedExtensions = map[string]string{"posix-rename@openssh.com": "rename", "hardlink@openssh.com": "link", "lsetstat@openssh.com": "setstat"}

// changesFiles reports whether a request is for more than looking and reading.
func changesFiles(typ byte, p payload) bool {
	switch typ {
	case fxInit, fxClose, fxRead, fxLstat, fxFstat, fxOpendir, fxReaddir, fxRealpath, fxStat, fxReadlink:
		return false
	case fxOpen:
		_, ok1 := p.str()
		flags, ok2 := p.u32()
		return !ok1 || !ok2 || flags&^openRead != 0
	case fxExtended:
		name, ok := p.str()
		if !ok {
			return true
		}
		switch string(name) {
		case "limits@openssh.com", "statvfs@openssh.com", "fstatvfs@openssh.com", "expand-path@openssh.com", "users-groups-by-id@openssh.com":
			return false
		}
	}
	return true
}
