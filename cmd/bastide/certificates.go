// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"bastide.dev/cluster"
	"bastide.dev/fault"
	"bastide.dev/instance"
	"bastide.dev/pki"
	"bastide.dev/resource"
	"bastide.dev/store"
)

func newCertificates(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "certificates [GROUP/CLUSTER]",
		Short: "List the certificates of the instance and its clusters, and when they end",
		Long: `Lists the instance's own certificates and every one that clusters use, the authorities
among them, with the time at which it ends. All but authorities are renewed by themselves
when two thirds of their life are over. Clusters' authorities last 30 years and are replaced
by "az aks rotate-certs", the instance's own last ten and are replaced by "bastide rotate-ca".

The same is served as metrics, bastide_certificate_expiry_seconds{cluster,name}, at
/metrics of the address that hosts report to, for who shows the host's certificate.`,
		Example: "  bastide certificates\n  bastide certificates shop/prod -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: g.inStore("bastide certificates", func(cmd *cobra.Command, args []string, s store.Store) error {
			all, err := cluster.Certificates(cmd.Context(), s)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				in, err := g.load()
				if err != nil {
					return err
				}
				all = append(instanceCertificates(in.Dir("tls")), all...)
			} else {
				if all, err = certificatesOf(all, args[0]); err != nil {
					return err
				}
			}
			if g.output == "json" {
				return printJSON(cmd, append([]cluster.Certificate{}, all...))
			}
			return printCertificates(cmd, all, time.Now())
		}),
	}
}

// certificatesOf are those of one cluster, named as GROUP/CLUSTER.
func certificatesOf(all []cluster.Certificate, name string) ([]cluster.Certificate, error) {
	var found []cluster.Certificate
	for _, c := range all {
		if strings.EqualFold(shortName(c.Cluster), name) {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return nil, fault.New(fault.NotFound, "ResourceNotFound", "There is no cluster %s: name it GROUP/CLUSTER.", name)
	}
	return found, nil
}

func shortName(id string) string {
	parsed, err := resource.ParseID(id)
	if err != nil {
		return id
	}
	return parsed.Group() + "/" + parsed.Name()
}

func printCertificates(cmd *cobra.Command, all []cluster.Certificate, now time.Time) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CLUSTER\tCERTIFICATE\tENDS\tLEFT")
	for _, c := range all {
		left := fmt.Sprintf("%d days", int(c.Ends.Sub(now).Hours()/24))
		if !now.Before(c.Ends) {
			left = "expired"
		}
		of := "-" // the instance's own
		if c.Cluster != "" {
			of = shortName(c.Cluster)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", of, c.Name, c.Ends.UTC().Format(time.RFC3339), left)
	}
	return w.Flush()
}

// expiry is a prometheus.Collector of when certificates end: those of clusters,
// and the instance's own.
type expiry struct {
	store store.Store
	dir   string // of the instance's own
	log   *slog.Logger
	what  *prometheus.Desc
}

func newExpiry(s store.Store, in *instance.Instance, log *slog.Logger) *expiry {
	return &expiry{store: s, dir: in.Dir("tls"), log: log, what: prometheus.NewDesc("bastide_certificate_expiry_seconds",
		"When a certificate ends, in seconds since 1970. The instance's own have no cluster.", []string{"cluster", "name"}, nil)}
}

func (e *expiry) Describe(out chan<- *prometheus.Desc) { out <- e.what }

func (e *expiry) Collect(out chan<- prometheus.Metric) {
	tell := func(of, name string, ends time.Time) {
		out <- prometheus.MustNewConstMetric(e.what, prometheus.GaugeValue, float64(ends.Unix()), of, name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	all, err := cluster.Certificates(ctx, e.store)
	if err != nil {
		e.log.Error("certificates not counted", "error", err)
	}
	for _, c := range all {
		tell(shortName(c.Cluster), c.Name, c.Ends)
	}
	for _, c := range instanceCertificates(e.dir) {
		tell("", c.Name, c.Ends)
	}
}

// instanceCertificates are the instance's own, as far as this process may read
// them: serve may read its own, and whom to believe.
func instanceCertificates(dir string) []cluster.Certificate {
	var all []cluster.Certificate
	for _, pattern := range []string{"*.crt", "*.pem"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return nil // the patterns are fixed
		}
		for _, f := range files {
			if ends := certificateEnds(f); !ends.IsZero() {
				all = append(all, cluster.Certificate{Name: strings.TrimSuffix(filepath.Base(f), pattern[1:]), Ends: ends})
			}
		}
	}
	return all
}

// withMetrics serves /metrics beside hosts' own paths. The listener lets in
// nobody without a certificate of the instance.
func withMetrics(next http.Handler, s store.Store, in *instance.Instance, log *slog.Logger) (http.Handler, error) {
	registry := prometheus.NewRegistry()
	if err := registry.Register(newExpiry(s, in, log)); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2}))
	mux.Handle("/", next)
	return mux, nil
}

// certificateEnds is zero for a file that can't be read: serve may read its own only.
func certificateEnds(path string) time.Time {
	data, err := os.ReadFile(path)
	if err != nil {
		return time.Time{}
	}
	return pki.Ends(data)
}
