package localapi

import (
	"os"
	"path/filepath"
	"strconv"
)

// SystemPath is the socket of a host's own daemon.
const SystemPath = "/run/tssh/tsshd.sock"

// UserPath is the socket of a person's own node: below $XDG_RUNTIME_DIR where there is
// one, since that is gone with the login, else below the person's state folder.
func UserPath() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "tssh", "tssh.sock")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "state", "tssh", "tssh.sock")
	}
	return filepath.Join(os.TempDir(), "tssh-"+strconv.Itoa(os.Getuid()), "tssh.sock")
}
