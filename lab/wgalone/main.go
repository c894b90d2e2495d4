// Wgalone is wireguard-go alone: its device with its own TUN and socket, for `make bench`
// to compare the mesh with. FILE has its configuration in the form of the UAPI; it runs
// until it is ended.
//
//	wgalone NAME MTU FILE
package main

import (
	"fmt"
	"os"
	"strconv"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

func main() {
	if err := serve(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "wgalone: error:", err)
		os.Exit(1)
	}
}

func serve(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: wgalone NAME MTU FILE")
	}
	mtu, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	config, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	t, err := tun.CreateTUN(args[0], mtu)
	if err != nil {
		return err
	}
	dev := device.NewDevice(t, conn.NewStdNetBind(), device.NewLogger(device.LogLevelError, "wgalone: "))
	if err := dev.IpcSet(string(config)); err != nil {
		return err
	}
	if err := dev.Up(); err != nil {
		return err
	}
	fmt.Println("up")
	<-dev.Wait()
	return nil
}
