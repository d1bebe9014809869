// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"bastide.dev/controlplane"
	"bastide.dev/fault"
	"bastide.dev/pki"
)

// A control plane's directories, below controlplanes/<id>, which is root's and
// which only its uid may pass:
//
//	uid      the uid, written first and removed last
//	config/  a directory a program; root's, so that nobody else can put a link there
//	etcd/    etcd's data, the uid's own
//	audit/   the API server's audit log, the uid's own
//	logs/    root's: a program gets its log as an open file
//	backups/ root's: copies of etcd's data, sealed ones in kept/
const (
	uidFile   = "uid"
	configDir = "config"
	etcdDir   = "etcd"
	auditDir  = "audit"
	logsDir   = "logs"
	// backupsDir is root's: what is in it has all the cluster's secrets, sealed ones
	// and others.
	backupsDir = "backups"
)

func (p *Plane) dir(id string, parts ...string) string {
	return filepath.Join(append([]string{p.StateDir, "controlplanes", id}, parts...)...)
}

func (p *Plane) dirs(id string) controlplane.Dirs {
	return controlplane.Dirs{Config: p.dir(id, configDir), Etcd: p.dir(id, etcdDir), Audit: p.dir(id, auditDir)}
}

// ensureDirs makes what is missing, and returns the uid, which is the gid too.
func (p *Plane) ensureDirs(id string) (int, error) {
	uid, err := p.ensureUID(id)
	if err != nil {
		return 0, fmt.Errorf("choose uid of %s: %w", id, err)
	}
	type entry struct {
		path       string
		uid        int
		permission fs.FileMode
	}
	entries := []entry{{p.dir(id), 0, 0o710}, {p.dir(id, configDir), 0, 0o710}, {p.dir(id, etcdDir), uid, 0o700}, {p.dir(id, auditDir), uid, 0o700}, {p.dir(id, logsDir), 0, 0o700}, {p.dir(id, backupsDir), 0, 0o700}}
	for _, program := range everything() {
		entries = append(entries, entry{p.dir(id, configDir, program), 0, 0o710})
	}
	for _, e := range entries {
		if err := os.Mkdir(e.path, e.permission); err != nil && !errors.Is(err, fs.ErrExist) {
			return 0, fmt.Errorf("make directories of %s: %w", id, err)
		}
		// Both each time: a crash may have come between.
		if err := errors.Join(os.Lchown(e.path, e.uid, uid), os.Chmod(e.path, e.permission)); err != nil {
			return 0, fmt.Errorf("make directories of %s: %w", id, err)
		}
	}
	return uid, nil
}

func (p *Plane) ensureUID(id string) (int, error) {
	p.uids.Lock()
	defer p.uids.Unlock()
	if uid, err := p.readUID(id); err == nil {
		return uid, nil
	}
	used := map[int]bool{}
	for _, other := range p.IDs() {
		if uid, err := p.readUID(other); err == nil {
			used[uid] = true
		}
	}
	for uid := p.UIDBase; uid < p.UIDBase+p.UIDCount; uid++ {
		if used[uid] {
			continue
		}
		if err := os.Mkdir(p.dir(id), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return 0, err
		}
		return uid, pki.WriteFile(p.dir(id, uidFile), []byte(strconv.Itoa(uid)), -1, -1)
	}
	return 0, fault.New(fault.Exhausted, "", "All %d uids for control planes are taken.", p.UIDCount)
}

func (p *Plane) readUID(id string) (int, error) {
	data, err := os.ReadFile(p.dir(id, uidFile))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// removeDirs removes the uid's own record last: until then it stays taken.
func (p *Plane) removeDirs(id string) error {
	for _, sub := range []string{configDir, etcdDir, auditDir, logsDir, ""} {
		if err := os.RemoveAll(p.dir(id, sub)); err != nil {
			return err
		}
	}
	return nil
}

// forget removes the files of a program that the control plane no longer has:
// some are secrets.
func (p *Plane) forget(id, program string) error {
	files, err := os.ReadDir(p.dir(id, configDir, program))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range files {
		if err := os.RemoveAll(p.dir(id, configDir, program, f.Name())); err != nil {
			return err
		}
	}
	return nil
}

// writeFiles brings the files up to date, issues the certificates that are
// missing, wrong or due, and returns those that are read at start only, by
// program and name.
func (p *Plane) writeFiles(id string, plan controlplane.Plan, uid int) (map[string]map[string][]byte, error) {
	files := plan.Files
	for _, program := range plan.Programs {
		files = append(files,
			controlplane.File{Program: program.Name, Name: "resolv.conf", Data: []byte("nameserver 168.63.129.16\n")},
			controlplane.File{Program: program.Name, Name: "hosts", Data: []byte("127.0.0.1 localhost\n")})
	}
	for _, f := range files {
		if err := writeIfOther(p.dir(id, configDir, f.Program, f.Name), f.Data, uid); err != nil {
			return nil, err
		}
	}
	pinned := map[string]map[string][]byte{}
	for _, leaf := range plan.Leaves {
		certificate, err := p.ensureLeaf(id, leaf, uid)
		if err != nil {
			return nil, fmt.Errorf("certificate %s of %s: %w", leaf.Name, leaf.Program, err)
		}
		if leaf.Pinned {
			if pinned[leaf.Program] == nil {
				pinned[leaf.Program] = map[string][]byte{}
			}
			pinned[leaf.Program][leaf.Name] = certificate
		}
	}
	return pinned, nil
}

func (p *Plane) ensureLeaf(id string, leaf controlplane.Leaf, uid int) ([]byte, error) {
	certificate, ok, err := p.currentLeaf(id, leaf)
	if err != nil || ok {
		return certificate, err
	}
	ca, err := pki.OpenCA(pki.Pair(leaf.CA))
	if err != nil {
		return nil, err
	}
	base := p.dir(id, configDir, leaf.Program, leaf.Name)
	pair, err := ca.Issue(leaf.Request)
	if err != nil {
		return nil, err
	}
	// A reader that meets the new key with the old certificate tries again; a
	// crash here makes a pair that doesn't match, and so isn't current.
	if err := writeFile(base+".key", pair.Key, uid); err != nil {
		return nil, err
	}
	return pair.Certificate, writeFile(base+".crt", pair.Certificate, uid)
}

func writeIfOther(path string, data []byte, uid int) error {
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, data) {
		return nil
	}
	return writeFile(path, data, uid)
}

// writeFile is pki.WriteFile without waiting for the disk: after a power loss
// the next Apply finds what is wrong and writes it again.
func writeFile(path string, data []byte, uid int) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chown(uid, uid), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
