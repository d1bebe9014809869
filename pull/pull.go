// SPDX-License-Identifier: Apache-2.0

// Package pull signs a node in to the instance's registry, as the identity that
// the node has: it is kubelet's credential provider plug-in, as AKS has one for
// its registries. It buys a token at the metadata address and exchanges that at
// the registry for one that pulls; no secret is kept on the node.
//
// It runs inside machines, and only cmd/bastide-netpolicy imports it, the one
// program beside the agent that they have.
package pull

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Command is the argument that kubelet calls the program with, before the
// registry's host name and the file of what signs for it.
const Command = "pull-credentials"

const (
	metadataURL = "http://169.254.169.254"
	tokenUser   = "00000000-0000-0000-0000-000000000000" // whose password is a token
	audience    = "https://containerregistry.azure.net"
	maxAnswer   = 256 << 10
	patience    = 20 * time.Second
	// cached is how long kubelet asks no more. The registry asks at each pull whether
	// the identity may; another identity of the node's shows after this.
	cached     = 5 * time.Minute
	apiVersion = "credentialprovider.kubelet.k8s.io/v1"
)

// errNobody is a node without an identity: kubelet pulls without a name then.
var errNobody = errors.New("the node has no identity")

// signer buys credentials of one registry.
type signer struct {
	registry string // host name
	metadata string // URL
	exchange string // URL
	plain    *http.Client
	secure   *http.Client
}

// Run answers one request of kubelet's; args are those after Command.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) != 2 {
		return fmt.Errorf("it is called with a registry and a file of authorities, not %d arguments", len(args))
	}
	authorities, err := os.ReadFile(args[1])
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authorities) {
		return fmt.Errorf("%s holds no certificate", args[1])
	}
	// No proxy of the environment gets to see tokens.
	s := signer{registry: args[0], metadata: metadataURL, exchange: "https://" + args[0] + "/oauth2/exchange",
		plain:  &http.Client{Transport: &http.Transport{}, CheckRedirect: noRedirects},
		secure: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}, CheckRedirect: noRedirects}}
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	return s.answer(ctx, stdin, stdout)
}

func noRedirects(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

type credential struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// response is kubelet's CredentialProviderResponse.
type response struct {
	Kind          string                `json:"kind"`
	APIVersion    string                `json:"apiVersion"`
	CacheKeyType  string                `json:"cacheKeyType"`
	CacheDuration string                `json:"cacheDuration"`
	Auth          map[string]credential `json:"auth"`
}

func (s *signer) answer(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	var request struct{ Kind, APIVersion, Image string }
	if err := json.NewDecoder(io.LimitReader(stdin, maxAnswer)).Decode(&request); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	if request.Kind != "CredentialProviderRequest" || request.APIVersion != apiVersion {
		return fmt.Errorf("request is a %q of %q", request.Kind, request.APIVersion)
	}
	answer := response{Kind: "CredentialProviderResponse", APIVersion: apiVersion, CacheKeyType: "Registry",
		CacheDuration: cached.String(), Auth: map[string]credential{}}
	if host, _, _ := strings.Cut(request.Image, "/"); host == s.registry {
		token, err := s.signIn(ctx)
		switch {
		case errors.Is(err, errNobody):
			answer.CacheDuration = "0s"
		case err != nil:
			return err
		default:
			answer.Auth[s.registry] = credential{tokenUser, token}
		}
	}
	return json.NewEncoder(stdout).Encode(answer)
}

// signIn buys a token of the registry.
func (s *signer) signIn(ctx context.Context) (string, error) {
	query := url.Values{"api-version": {"2018-02-01"}, "resource": {audience}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.metadata+"/metadata/identity/oauth2/token?"+query.Encode(), nil)
	if err != nil {
		return "", err
	}
	request.Header.Set("Metadata", "true")
	var bought struct {
		Token string `json:"access_token"`
	}
	if status, err := ask(s.plain, request, &bought); status == http.StatusBadRequest || status == http.StatusNotFound {
		return "", errNobody
	} else if err != nil {
		return "", fmt.Errorf("token of the node: %w", err)
	}
	form := url.Values{"grant_type": {"access_token"}, "service": {s.registry}, "access_token": {bought.Token}}
	request, err = http.NewRequestWithContext(ctx, http.MethodPost, s.exchange, bytes.NewReader([]byte(form.Encode())))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	var exchanged struct {
		Token string `json:"refresh_token"`
	}
	if _, err := ask(s.secure, request, &exchanged); err != nil {
		return "", fmt.Errorf("token of the registry: %w", err)
	}
	if exchanged.Token == "" {
		return "", errors.New("the registry answers without a token")
	}
	return exchanged.Token, nil
}

// ask reads an answer; nothing of one that isn't a success is shown: it may quote a token.
func ask(client *http.Client, request *http.Request, into any) (int, error) {
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return answer.StatusCode, fmt.Errorf("%s answers %s", request.URL.Host, answer.Status)
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(into); err != nil {
		return answer.StatusCode, fmt.Errorf("%s answers what isn't JSON", request.URL.Host)
	}
	return answer.StatusCode, nil
}
