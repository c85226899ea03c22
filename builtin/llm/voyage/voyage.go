// Package voyage is a client of Voyage AI's embeddings, and of servers with the
// same API: the vectors of users of Anthropic, which has none of its own.
package voyage

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/ultravisor/beacon/builtin/llm/model"
	"github.com/ultravisor/beacon/builtin/llm/openai"
	"github.com/ultravisor/beacon/builtin/llm/secret"
	"github.com/ultravisor/beacon/builtin/llm/wire"
)

// Config says where the service is.
type Config struct {
	// BaseURL is where the API begins, with its version.
	BaseURL *url.URL
	// Key is sent as a bearer token, if there is one.
	Key secret.Value
}

// A Client asks for embeddings. It may be used concurrently.
type Client struct {
	cfg  Config
	http *http.Client
}

// New makes a client that sends its requests through the wire.
func New(cfg Config, client *wire.Client) *Client { return &Client{cfg, client.HTTP()} }

// Embed asks for one vector per text.
func (c *Client) Embed(ctx context.Context, r *model.Embedding) (model.Vectors, error) {
	form := map[string]any{"model": r.Model, "input": r.Texts}
	if r.Dimensions != nil {
		form["output_dimension"] = *r.Dimensions
	}
	raw, err := model.Encode(form)
	if err != nil {
		return model.Vectors{}, fmt.Errorf("encode the request: %w", err)
	}
	if raw, err = model.Patch(raw, r.Extra); err != nil {
		return model.Vectors{}, err
	}
	ctx, failure := wire.Keep(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.BaseURL.JoinPath("embeddings").String(), bytes.NewReader(raw))
	if err != nil {
		return model.Vectors{}, failure(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "beacon")
	if !c.cfg.Key.Empty() {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Key.Reveal())
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return model.Vectors{}, failure(err)
	}
	defer resp.Body.Close()
	return openai.ReadEmbeddings(resp, len(r.Texts))
}
