// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"bastide.dev/client"
	"bastide.dev/cluster"
	"bastide.dev/fault"
	"bastide.dev/instance"
	"bastide.dev/pki"
)

// Bounds of what a rotation waits for.
const (
	shownWithin = time.Minute
	// toldWithin is how long clusters have to take the new authority on. Nothing
	// depends on it: the old one vouches for the new.
	toldWithin = 3 * time.Minute
)

func newRotateCA(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "rotate-ca",
		Short: "Replace the instance's own certificate authorities",
		Long: `Draws new authorities for the instance: what signs the certificates of its front door
and its hosts, and that of its store. The old ones vouch for the new, so that whoever trusts
an old one alone goes on; their keys are destroyed at once. Then everything that they
signed is replaced, clusters and their nodes are told, and nothing that they signed is
believed any more. The service isn't interrupted.

What "bastide env" points to is rewritten. Who copied the instance's CA elsewhere has four
rotations' time to copy it again. Certificates of clusters are replaced by "az aks rotate-certs".

It is safe to repeat: one that was interrupted is gone on with, by this or by the daemon.`,
		Example: "  bastide rotate-ca\n  bastide rotate-ca -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := mustBeRoot("bastide rotate-ca"); err != nil {
				return err
			}
			in, err := g.load()
			if err != nil {
				return err
			}
			if daemonPID(in) == 0 {
				return fault.New(fault.Unavailable, "NotRunning", "Instance %q doesn't run: start it with `bastide up`.", in.Name)
			}
			out := cmd.OutOrStdout()
			if g.output == "json" {
				out = cmd.ErrOrStderr()
			}
			done, err := rotateCA(cmd.Context(), in, newProgress(out))
			if err != nil {
				return err
			}
			if g.output == "json" {
				return printJSON(cmd, done)
			}
			sayRotated(out, done)
			return nil
		},
	}
}

// rotated is what came of a rotation.
type rotated struct {
	Authorities []rotatedAuthority `json:"authorities"`
	// Waiting are clusters and machines that haven't taken the new one on: they do
	// when they are back, and go on until then.
	Waiting []string `json:"waiting"`
}

type rotatedAuthority struct {
	Name       string    `json:"name"`
	Subject    string    `json:"subject"`
	Generation int       `json:"generation"`
	SHA256     string    `json:"sha256"`
	Ends       time.Time `json:"notAfter"`
}

func sayRotated(out io.Writer, r rotated) {
	fmt.Fprintln(out)
	for _, a := range r.Authorities {
		fmt.Fprintf(out, "%s, until %s, SHA-256 %s\n", a.Subject, a.Ends.UTC().Format(time.DateOnly), a.SHA256)
	}
	if len(r.Waiting) > 0 {
		fmt.Fprintf(out, "\nNot told yet, and going on by the old one's word until they are: %s\n", strings.Join(r.Waiting, ", "))
	}
}

// rotation is one run of rotate-ca.
type rotation struct {
	in   *instance.Instance
	keys keyring
	view client.Instance
	done rotated
}

// rotateCA begins a rotation, or goes on with one.
func rotateCA(ctx context.Context, in *instance.Instance, p *progress) (rotated, error) {
	keys := newKeyring(in)
	unlock, err := lockFile(keys.path("rotate.lock"), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return rotated{}, fault.New(fault.Conflict, "OperationNotAllowed", "The instance's authorities are being rotated already.").Because(err)
	}
	defer unlock()
	view, err := client.LoadInstance(in.StateDir)
	if err != nil {
		return rotated{}, err
	}
	r := &rotation{in: in, keys: keys, view: view}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"Drawing new authorities", r.draw},
		{"Showing their certificates", func(ctx context.Context) error { return r.shown(ctx, false) }},
		{"Telling clusters and nodes", r.tell},
		{"Ending belief in the old ones", r.end},
	} {
		if err := p.step(step.name, func() error { return step.do(ctx) }); err != nil {
			return r.done, fmt.Errorf("rotate-ca: %w", err)
		}
	}
	return r.done, nil
}

// resume goes on with a rotation that was killed, unless somebody does.
func (k keyring) resume(ctx context.Context) error {
	goesOn, err := k.rotating()
	if err != nil || !goesOn {
		return err
	}
	if _, err = rotateCA(ctx, k.in, newProgress(io.Discard)); fault.Is(err, fault.Conflict) {
		return nil
	}
	return err
}

func (r *rotation) draw(context.Context) error {
	if err := r.keys.succeed(); err != nil {
		return err
	}
	for _, name := range authorities {
		a, err := r.keys.authority(name)
		if err != nil {
			return err
		}
		r.done.Authorities = append(r.done.Authorities, rotatedAuthority{Name: name, Subject: pki.Name(a.Current.Certificate),
			Generation: a.Generation, SHA256: pki.Fingerprint(a.Current.Certificate), Ends: pki.Ends(a.Current.Certificate)})
	}
	return r.view.WriteToolFiles()
}

// tell waits for clusters and nodes, which serve tells.
func (r *rotation) tell(ctx context.Context) error {
	sealed, err := openSealed(ctx, r.in, "etcd-root")
	if err != nil {
		return err
	}
	defer sealed.close()
	newest := r.keys.trust("ca").signs()
	ctx, cancel := context.WithTimeout(ctx, toldWithin)
	defer cancel()
	for r.done.Waiting = []string{}; ; {
		waiting, err := cluster.Untold(ctx, sealed.store, hostName, newest)
		if err == nil {
			r.done.Waiting = append([]string{}, waiting...)
		}
		if err == nil && len(waiting) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) && err == nil {
				return nil // they go on
			}
			return errors.Join(err, ctx.Err())
		case <-time.After(lookForTrust):
		}
	}
}

func (r *rotation) end(ctx context.Context) error {
	if err := r.keys.distrust(); err != nil {
		return err
	}
	if err := r.view.WriteToolFiles(); err != nil {
		return err
	}
	return r.shown(ctx, true)
}

// door is where the instance's certificates are shown.
type door struct {
	ca, address string
	name        string // asked for; empty where an address is enough
	leaf        string // of the client; empty where none is asked for
}

func (r *rotation) doors() []door {
	return []door{
		{"ca", netip.AddrPortFrom(r.in.FrontDoor(), 443).String(), r.in.Host("management"), ""},
		{"ca", r.in.HostAPI(), "", "host"},
		{"etcd-ca", r.in.EtcdClient(), "", "etcd-root"},
	}
}

// shown waits until every door shows a certificate of the new authorities and,
// when alone is set, asks for clients of those alone.
func (r *rotation) shown(ctx context.Context, alone bool) error {
	ctx, cancel := context.WithTimeout(ctx, shownWithin)
	defer cancel()
	for _, d := range r.doors() {
		for {
			err := r.look(ctx, d, alone)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return daemonTrouble(r.in, err)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

func (r *rotation) look(ctx context.Context, d door, alone bool) error {
	config, err := r.keys.client(d.ca, d.leaf)
	if err != nil {
		return err
	}
	var asked [][]byte
	config.ServerName = d.name
	config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = info.AcceptableCAs
		return r.keys.load(d.leaf)
	}
	attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{NetDialer: &net.Dialer{}, Config: config}).DialContext(attempt, "tcp", d.address)
	if err != nil {
		return err
	}
	defer conn.Close()
	shown := conn.(*tls.Conn).ConnectionState().PeerCertificates // a tls.Dialer's is one
	signs, err := pki.Certificates(r.keys.trust(d.ca).signs())
	if err != nil {
		return err
	}
	return newAlone(d, shown[0], signs[0], asked, alone)
}

func newAlone(d door, shown, signs *x509.Certificate, asked [][]byte, alone bool) error {
	if shown.CheckSignatureFrom(signs) != nil {
		return fmt.Errorf("%s still shows a certificate of %q", d.address, shown.Issuer.CommonName)
	}
	if alone && d.leaf != "" && (len(asked) != 1 || !bytes.Equal(asked[0], signs.RawSubject)) {
		return fmt.Errorf("%s still believes clients of the old authority", d.address)
	}
	return nil
}
