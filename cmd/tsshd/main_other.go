//go:build !linux

package main

import (
	"fmt"
	"os"
	"runtime"
)

// main says what this program does not do here. A session is given to a person by changing
// user for good and proving it from the kernel's own tables, over sockets that carry
// descriptors and credentials; that part exists for Linux alone, and a daemon that did half of
// it would be worse than none.
func main() {
	if len(os.Args) == 2 && (os.Args[1] == "version" || os.Args[1] == "--version") {
		fmt.Println("tsshd", version)
		return
	}
	os.Exit(explain(os.Stderr, fail("tsshd serves SSH on Linux only; %s is not supported yet", system()).
		hint("to be a node of the mesh without serving SSH, run: tssh up --join-file FILE")))
}

func system() string {
	if runtime.GOOS == "darwin" {
		return "macOS"
	}
	return runtime.GOOS
}
