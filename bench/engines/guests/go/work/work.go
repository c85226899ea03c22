// Package work is what the Go guests of the benchmark do.
package work

import (
	"encoding/json"
	"errors"
	"strings"
)

type item struct {
	ID   string   `json:"id"`
	Text string   `json:"text"`
	Tags []string `json:"tags"`
	N    int      `json:"n"`
}

// Upper decodes an item and returns its text in upper case.
func Upper(input []byte) ([]byte, error) {
	var it item
	if err := json.Unmarshal(input, &it); err != nil {
		return nil, err
	}
	if it.Text == "" {
		return nil, errors.New("no text")
	}
	return []byte(strings.ToUpper(it.Text)), nil
}
