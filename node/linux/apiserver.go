// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"bastide.dev/node"
)

// probe asks the API server whether nodes can join. Kubelet itself asks every
// two seconds only, and a new cluster's node is there before its server is.
type probe struct {
	address, name, token string
	roots                *x509.CertPool
	joins                bool // by the token, though the node may have joined already
}

func newProbe(config node.Config) probe {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.CA)
	p := probe{token: config.BootstrapToken, roots: roots}
	if server, err := url.Parse(config.Server); err == nil {
		p.name = server.Hostname()
		p.address = net.JoinHostPort(p.name, server.Port())
		if server.Port() == "" {
			p.address = net.JoinHostPort(p.name, "443")
		}
	}
	return p
}

// await returns when the server answers and, as long as the node hasn't joined,
// knows the bootstrap token: that comes into being after the server, and ends.
func (p probe) await(ctx context.Context) {
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		ok := p.ask(attempt)
		cancel()
		if ok {
			return
		}
		sleep(ctx, 20*time.Millisecond)
	}
}

// ask makes the one request by hand: an HTTP client is what nodes are built without.
func (p probe) ask(ctx context.Context) bool {
	dialer := &tls.Dialer{Config: &tls.Config{RootCAs: p.roots, ServerName: p.name, MinVersion: tls.VersionTLS12}}
	conn, err := dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		return false
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return false
		}
	}
	path, authorization := "/readyz", ""
	if _, err := os.Stat(node.KubeconfigPath); (err != nil || p.joins) && p.token != "" { // hasn't joined yet
		path, authorization = "/version", "Authorization: Bearer "+p.token+"\r\n"
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\n%sConnection: close\r\n\r\n", path, p.address, authorization); err != nil {
		return false
	}
	status, err := bufio.NewReader(conn).ReadString('\n')
	return err == nil && strings.Contains(status, " 200 ")
}
