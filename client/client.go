// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	armruntime "github.com/Azure/azure-sdk-for-go/sdk/azcore/arm/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// pollEvery is how often a running operation is asked for. The front door holds
// each question until something changes.
const pollEvery = time.Second

// Config is what a Client needs.
type Config struct {
	Instance Instance
	Secrets  Secrets
	// Credential, when set, is used in place of the instance's service principal.
	Credential azcore.TokenCredential
}

// Client talks to an instance's ARM front door as one principal. It is safe for concurrent use.
type Client struct {
	instance   Instance
	http       *http.Client
	credential azcore.TokenCredential
	pipeline   runtime.Pipeline
}

// New makes a client; it sends nothing yet.
func New(config Config) (*Client, error) {
	transport, err := config.Instance.Transport()
	if err != nil {
		return nil, err
	}
	c := &Client{instance: config.Instance, http: &http.Client{Transport: transport}, credential: config.Credential}
	options := policy.ClientOptions{Cloud: config.Instance.Cloud(), Transport: c.http}
	if c.credential == nil {
		c.credential, err = azidentity.NewClientSecretCredential(config.Instance.TenantID, config.Instance.ClientID, config.Secrets.ClientSecret,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: true})
		if err != nil {
			return nil, fmt.Errorf("credential: %w", err)
		}
	}
	// Faults of the front door are answers; only a front door that is (re)starting is worth another try.
	options.Retry = policy.RetryOptions{MaxRetries: 5, RetryDelay: 200 * time.Millisecond, MaxRetryDelay: 2 * time.Second,
		StatusCodes: []int{http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable}}
	c.pipeline, err = armruntime.NewPipeline("bastide", "v1", c.credential, runtime.PipelineOptions{},
		&arm.ClientOptions{ClientOptions: options, DisableRPRegistration: true})
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return c, nil
}

// Cloud is the instance as the Azure SDKs describe a cloud.
func (i Instance) Cloud() cloud.Configuration {
	return cloud.Configuration{
		ActiveDirectoryAuthorityHost: i.Authority() + "/",
		Services: map[cloud.ServiceName]cloud.ServiceConfiguration{
			cloud.ResourceManager: {Audience: i.ResourceManager(), Endpoint: i.ResourceManager()},
		},
	}
}

// Transport trusts the instance's CA alone and finds its names at its address,
// whatever the machine's resolver and proxies say.
func (i Instance) Transport() (*http.Transport, error) {
	roots, err := i.roots()
	if err != nil {
		return nil, err
	}
	names := i.Hosts()
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	return &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:   true,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     time.Minute,
		TLSHandshakeTimeout: 5 * time.Second,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(address)
			if err == nil && i.Address.IsValid() && slices.Contains(names, host) {
				address = net.JoinHostPort(i.Address.String(), port)
			}
			return dialer.DialContext(ctx, network, address)
		},
	}, nil
}

// Health is nil when the front door answers.
func (c *Client) Health(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.instance.ResourceManager()+"/metadata/endpoints?api-version=2019-05-01", nil)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("front door doesn't answer: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 1<<20))
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("front door answers %s", answer.Status)
	}
	return nil
}

// Token returns an access token for a resource, such as the front door itself.
func (c *Client) Token(ctx context.Context, resource string) (string, error) {
	token, err := c.credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{strings.TrimRight(resource, "/") + "/.default"}})
	if err != nil {
		return "", fmt.Errorf("token for %s: %w", resource, err)
	}
	return token.Token, nil
}

// Get reads a resource into a T.
func Get[T any](ctx context.Context, c *Client, id, version string) (T, error) {
	var into T
	answer, err := c.do(ctx, http.MethodGet, c.address(id, version), nil)
	if err != nil {
		return into, err
	}
	return into, decode(answer, &into)
}

// List reads all pages of a collection.
func List[T any](ctx context.Context, c *Client, id, version string) ([]T, error) {
	return Query[T](ctx, c, id, version, nil)
}

// Query is List with further parameters.
func Query[T any](ctx context.Context, c *Client, id, version string, parameters map[string]string) ([]T, error) {
	all := []T{}
	first := c.address(id, version)
	for name, value := range parameters {
		first += "&" + url.QueryEscape(name) + "=" + url.QueryEscape(value)
	}
	for next := first; next != ""; {
		if !strings.HasPrefix(next, c.instance.ResourceManager()+"/") {
			return nil, fmt.Errorf("next page %q isn't at the front door", next)
		}
		answer, err := c.do(ctx, http.MethodGet, next, nil)
		if err != nil {
			return nil, err
		}
		var page struct {
			Value    []T    `json:"value"`
			NextLink string `json:"nextLink"`
		}
		if err := decode(answer, &page); err != nil {
			return nil, err
		}
		all, next = append(all, page.Value...), page.NextLink
	}
	return all, nil
}

// Put creates or replaces a resource and waits until that has ended.
func Put[T any](ctx context.Context, c *Client, id, version string, body any) (T, error) {
	return change[T](ctx, c, http.MethodPut, id, version, body)
}

// Post runs an action of a resource and waits until it has ended.
func Post[T any](ctx context.Context, c *Client, id, version string, body any) (T, error) {
	return change[T](ctx, c, http.MethodPost, id, version, body)
}

// Delete removes a resource and waits until it is gone.
func (c *Client) Delete(ctx context.Context, id, version string) error {
	_, err := change[struct{}](ctx, c, http.MethodDelete, id, version, nil)
	return err
}

func change[T any](ctx context.Context, c *Client, method, id, version string, body any) (T, error) {
	var into T
	answer, err := c.do(ctx, method, c.address(id, version), body)
	if err != nil {
		return into, err
	}
	header := answer.Header
	if header.Get("Azure-AsyncOperation") == "" && header.Get("Location") == "" {
		return into, decode(answer, &into)
	}
	poller, err := runtime.NewPoller[T](answer, c.pipeline, nil)
	if err != nil {
		return into, fmt.Errorf("%s %s: %w", method, id, err)
	}
	into, err = poller.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: pollEvery})
	if err != nil {
		return into, fmt.Errorf("%s %s: %w", method, id, err)
	}
	return into, nil
}

// do sends one request; any answer that isn't a success is an *azcore.ResponseError.
func (c *Client) do(ctx context.Context, method, address string, body any) (*http.Response, error) {
	request, err := runtime.NewRequest(ctx, method, address)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, address, err)
	}
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode body: %w", err)
		}
		if err := request.SetBody(streaming.NopCloser(bytes.NewReader(data)), "application/json"); err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, address, err)
		}
	}
	answer, err := c.pipeline.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, address, err)
	}
	if answer.StatusCode/100 != 2 {
		return nil, runtime.NewResponseError(answer)
	}
	return answer, nil
}

func decode(answer *http.Response, into any) error {
	data, err := runtime.Payload(answer)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("decode answer: %w", err)
	}
	return nil
}

func (c *Client) address(id, version string) string {
	return c.instance.ResourceManager() + "/" + strings.TrimLeft(id, "/") + "?" + url.Values{"api-version": {version}}.Encode()
}
