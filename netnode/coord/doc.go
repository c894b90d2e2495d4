// Package coord is the coordination server.
package coord
