// Command tsshub runs a mesh's hub and administers it.
package main
