//go:build tools

// Package tools pins the load tool that the bench compares with.
package tools

import _ "go.k6.io/k6"
