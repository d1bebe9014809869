// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"bastide.dev/drill/linux"
)

// watch is a watch that stays open on an API server: an intruder who is in
// already needs no new connection.
type watch struct {
	cluster   *Cluster
	from      *Terminal
	address   string
	namespace string

	conn  *tls.Conn
	lines *bufio.Reader
	n     int
}

func (w *watch) attack() Attack {
	return Attack{From: w.from.Who(), To: "go on reading an open watch at https://" + w.address, Try: w.try}
}

// try makes something happen and looks whether the watch tells of it.
func (w *watch) try(ctx context.Context) (Result, error) {
	opened := false
	if w.conn == nil {
		if err := w.open(ctx); err != nil {
			return refusal(err)
		}
		opened = true
	}
	w.n++
	word := "seen-" + strconv.Itoa(w.n)
	o := object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": object{"name": "watched", "namespace": w.namespace}, "data": object{"word": word}}
	text, err := jsonText(o)
	if err != nil {
		return Result{}, err
	}
	if _, err := w.cluster.Kubectl(ctx, text, "apply", "-f", "-"); err != nil {
		return Result{}, err
	}
	_ = w.conn.SetReadDeadline(time.Now().Add(tryTime))
	for {
		line, err := w.lines.ReadString('\n')
		if err != nil {
			w.close()
			r, bad := refusal(err)
			r.Got = "the open watch is cut: " + r.Got
			return r, bad
		}
		if strings.Contains(line, word) {
			if opened {
				return Result{Worked: true, Got: "a new watch tells of a change"}, nil
			}
			return Result{Worked: true, Got: "the open watch tells of a change"}, nil
		}
	}
}

func (w *watch) open(ctx context.Context) error {
	config, err := clientTLS(w.cluster.Kubeconfig)
	if err != nil {
		return err
	}
	config.ServerName = w.cluster.FQDN
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	plain, err := linux.Dial(ctx, w.from.path, w.address)
	if err != nil {
		return err
	}
	conn := tls.Client(plain, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = plain.Close()
		return err
	}
	if _, err := fmt.Fprintf(conn, "GET /api/v1/namespaces/%s/configmaps?watch=1 HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\n\r\n", w.namespace, w.cluster.FQDN); err != nil {
		_ = conn.Close()
		return err
	}
	w.conn, w.lines = conn, bufio.NewReader(conn)
	return nil
}

func (w *watch) close() {
	if w.conn != nil {
		_ = w.conn.Close()
		w.conn = nil
	}
}

// clientTLS reads the administrator's certificate out of a kubeconfig.
func clientTLS(path string) (*tls.Config, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return configTLS(text)
}

func configTLS(text []byte) (*tls.Config, error) {
	var config struct {
		Clusters []struct {
			Cluster struct {
				CA []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Certificate []byte `json:"client-certificate-data"`
				Key         []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	if len(config.Clusters) == 0 || len(config.Users) == 0 {
		return nil, errors.New("kubeconfig: no cluster or no user")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(config.Clusters[0].Cluster.CA) {
		return nil, errors.New("kubeconfig: no certificate authority")
	}
	certificate, err := tls.X509KeyPair(config.Users[0].User.Certificate, config.Users[0].User.Key)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, nil
}

func readFile(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	return text, nil
}

// resolver asks the name server of terminals.
func (t *Terminal) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return linux.DialNetwork(ctx, t.path, network, resolverAddress)
	}}
}

// resolverAddress is where Azure's DNS answers, and where the instance's does.
const resolverAddress = "168.63.129.16:53"
