package sshd_test

import (
	"os/exec"
	"strings"
	"testing"
)

// pinger sends ping@openssh.com (OpenSSH's PROTOCOL section 1.9) before and in the middle of a
// session, and wants each answer: its bytes, in a message of their own.
const pinger = `
import paramiko, queue, socket, sys
host, port, peer, user = sys.argv[1:]
s = socket.socket()
s.bind((peer, 0))
s.connect((host, int(port)))
t = paramiko.Transport(s)
got = queue.Queue()
t._handler_table = dict(t._handler_table)
t._handler_table[193] = lambda self, m: got.put(m.get_binary())
t.start_client(timeout=30)
t.auth_none(user)
def ping(data):
    m = paramiko.Message()
    m.add_byte(bytes([192]))
    m.add_string(data)
    t._send_message(m)
    if got.get(timeout=30) != data:
        raise SystemExit('another answer')
ping(b'')
c = t.open_session()
c.exec_command('cat')
for n in range(20):
    ping(bytes([n]) * 1000)
c.sendall(b'through')
c.shutdown_write()
print(c.makefile().read().decode(), c.recv_exit_status())
`

func TestPing(t *testing.T) {
	if err := exec.Command("/usr/bin/python3", "-c", "import paramiko").Run(); err != nil {
		t.Skip("no python3-paramiko, which this is sent with")
	}
	r := newRig(t, usual())
	d := r.daemon()
	host, port, _ := strings.Cut(d.addr, ":")
	out, err := exec.Command("/usr/bin/python3", "-c", pinger, host, port, r.Peer, account(t).Username).CombinedOutput()
	if err != nil || string(out) != "through 0\n" {
		t.Errorf("%s %v", out, err)
	}
}
