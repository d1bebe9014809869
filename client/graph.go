// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
)

// maxGraph bounds one answer of the directory.
const maxGraph = 32 << 20

// GraphList reads all pages of a collection of the directory, such as "/v1.0/applications".
func GraphList[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	all := []T{}
	for next := c.instance.Graph() + path; next != ""; {
		if !strings.HasPrefix(next, c.instance.Graph()+"/") {
			return nil, fmt.Errorf("next page %q isn't at the directory", next)
		}
		var page struct {
			Value []T    `json:"value"`
			Next  string `json:"@odata.nextLink"`
		}
		if err := c.graph(ctx, http.MethodGet, next, nil, &page); err != nil {
			return nil, err
		}
		all, next = append(all, page.Value...), page.Next
	}
	return all, nil
}

// GraphPost asks the directory something that takes a body.
func GraphPost[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	var into T
	data, err := json.Marshal(body)
	if err != nil {
		return into, fmt.Errorf("encode body: %w", err)
	}
	return into, c.graph(ctx, http.MethodPost, c.instance.Graph()+path, data, &into)
}

func (c *Client) graph(ctx context.Context, method, address string, body []byte, into any) error {
	token, err := c.Token(ctx, c.instance.Graph())
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, address, err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	if len(body) > 0 {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, address, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode/100 != 2 {
		return runtime.NewResponseError(answer)
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxGraph))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, address, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s %s: %w", method, address, err)
	}
	return nil
}
