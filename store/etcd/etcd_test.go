// SPDX-License-Identifier: Apache-2.0

package etcd

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"bastide.dev/fault"
	"bastide.dev/store"
	"bastide.dev/store/storetest"
)

// binary finds a real etcd: the bundle's, or one on the path.
func binary(t *testing.T) string {
	t.Helper()
	if found, err := exec.LookPath("etcd"); err == nil {
		return found
	}
	found, _ := filepath.Glob("/var/cache/bastide/bundles/etcd@*/root/usr/local/bin/etcd")
	if len(found) == 0 {
		t.Fatal("no etcd on this machine: build its bundle first (make bundles)")
	}
	return found[len(found)-1]
}

type server struct {
	socket, dir string
	command     *exec.Cmd
}

func (s *server) start(t *testing.T) {
	t.Helper()
	url := "unix://" + s.socket
	const peer = "http://127.0.0.1:1" // it must look like an address; a cluster of one calls nobody
	s.command = exec.Command(binary(t), "--data-dir", s.dir, "--name", "t", "--log-level", "error",
		"--listen-client-urls", url, "--advertise-client-urls", peer, "--listen-peer-urls", url+".peer",
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "t="+peer)
	s.command.Stderr = os.Stderr
	s.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
}

func (s *server) kill(t *testing.T) {
	t.Helper()
	_ = s.command.Process.Kill() // it may have ended already
	_ = s.command.Wait()         // its exit status is our kill
}

func startServer(t *testing.T) *server {
	t.Helper()
	dir, err := os.MkdirTemp("", "etcdstore") // t.TempDir's names are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	s := &server{socket: filepath.Join(dir, "s"), dir: filepath.Join(dir, "data")}
	s.start(t)
	t.Cleanup(func() {
		s.kill(t)
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return s
}

func connect(t *testing.T, s *server, prefix string) *Store {
	t.Helper()
	client, err := New(t.Context(), Config{Endpoints: []string{"unix://" + s.socket}, Prefix: prefix, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

func TestStore(t *testing.T) {
	s := startServer(t)
	connect(t, s, "") // fails at once, not once a test, when the server doesn't start
	n := 0
	storetest.Run(t, storetest.Subject{
		New: func(t *testing.T) store.Store {
			n++
			return connect(t, s, fmt.Sprintf("/t%d/", n)) // a prefix each: no test sees another's documents
		},
		Compact: func(t *testing.T, s store.Store, revision int64) {
			if _, err := s.(*Store).client.Compact(t.Context(), revision, clientv3.WithCompactPhysical()); err != nil {
				t.Fatal(err)
			}
		},
	})
}

func TestNoPrefixSeesEverything(t *testing.T) {
	s := startServer(t)
	all, part := connect(t, s, ""), connect(t, s, "/part/")
	if _, err := part.Put(t.Context(), "a", []byte("1"), store.Absent); err != nil {
		t.Fatal(err)
	}
	records, _, err := all.List(t.Context(), "")
	if err != nil || len(records) != 1 || records[0].Key != "/part/a" {
		t.Errorf("List of everything = %v, %v; want /part/a", records, err)
	}
}

func TestAcknowledgedSurvivesKillAndWatchResumes(t *testing.T) {
	server := startServer(t)
	s := connect(t, server, "/k/")
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	events := s.Watch(ctx, "", 0)
	revision, err := s.Put(ctx, "a", []byte("1"), store.Absent)
	if err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Key != "a" {
		t.Fatalf("event %+v, want a", e)
	}

	server.kill(t)
	short, stopShort := context.WithTimeout(ctx, 300*time.Millisecond)
	if _, err := s.Put(short, "b", nil, store.Any); err == nil {
		t.Error("a Put without a server succeeded")
	}
	stopShort()
	server.start(t)

	for {
		if _, err = s.Put(ctx, "a", []byte("2"), revision); !fault.Is(err, fault.Unavailable) {
			break
		}
	}
	if err != nil {
		t.Fatalf("Put at the acknowledged revision after the restart: %v", err)
	}
	for e := range events {
		if e.Key == "a" && string(e.Value) == "2" {
			return
		}
	}
	t.Error("the watch ended without the change after the restart")
}
