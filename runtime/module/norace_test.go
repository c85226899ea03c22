//go:build !race

package module_test

const race = false
