// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/node"
)

// apt calls Debian's tools.
type apt struct {
	kids *reaper
	dir  string // for what is read back; "" is aptDir
}

const (
	aptLog      = "/var/log/patches.log"
	aptLogBytes = 4 << 20
	aptDir      = "/run/bastide"
	// More than this a tool needn't say.
	aptOutputBytes = 2 << 20
	securityList   = aptDir + "/security.list"
	// politeness of what isn't urgent, beside pods and their probes
	aptNice = 10
)

// unattended are the options without which a question might wait for ever, a
// change of the admin's be lost, or a package go.
func unattended() []string {
	return []string{"-q", "-y", "-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold",
		"-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0", "--no-remove", "--no-install-recommends"}
}

// plan brings the lists up to date and gives the packages for which the security
// archive has something newer, with the version that all archives together give.
func (a *apt) plan(ctx context.Context) ([]node.Planned, error) {
	if err := a.run(ctx, nil, "apt-get", "-q", "-o", "Acquire::Retries=3", "-o", "APT::Update::Error-Mode=any", "-o", "DPkg::Lock::Timeout=120", "update"); err != nil {
		return nil, err
	}
	sources, err := os.ReadFile(node.SourcesPath)
	if err != nil {
		return nil, err
	}
	if err := writeFile(node.File{Path: securityList, Mode: 0o644, Data: node.SecuritySources(sources)}); err != nil {
		return nil, err
	}
	simulate := []string{"-s", "-q", "-o", "Debug::NoLocking=true", "--no-remove", "--with-new-pkgs"}
	var all, security []byte
	err = errors.Join(
		a.run(ctx, &all, "apt-get", append(slices.Clone(simulate), "upgrade")...),
		a.run(ctx, &security, "apt-get", append(slices.Clone(simulate), "-o", "Dir::Etc::SourceList="+securityList, "-o", "Dir::Etc::SourceParts=-",
			"-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "upgrade")...))
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, p := range node.ParsePlan(security) {
		wanted[p.Package] = true
	}
	return slices.DeleteFunc(node.ParsePlan(all), func(p node.Planned) bool { return p.From == "" || !p.Security && !wanted[p.Package] }), nil
}

func (a *apt) download(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	return a.run(ctx, nil, "apt-get", slices.Concat(unattended(), []string{"-o", "Acquire::Retries=3", "--download-only", "--only-upgrade", "install", "--"}, names)...)
}

func (a *apt) install(ctx context.Context, names []string) error {
	return a.run(ctx, nil, "apt-get", slices.Concat(unattended(), []string{"--only-upgrade", "install", "--"}, names)...)
}

// finish finishes what was begun: of packages that need each other, one may be
// there and the other not yet.
func (a *apt) finish(ctx context.Context) error {
	err := a.run(ctx, nil, "dpkg", "--force-confdef", "--force-confold", "--configure", "-a")
	if err == nil {
		return nil
	}
	mended := a.run(ctx, nil, "apt-get", slices.Concat(unattended(), []string{"-o", "Acquire::Retries=3", "--fix-broken", "install"})...)
	if mended == nil {
		return nil
	}
	return errors.Join(err, mended)
}

func (a *apt) clean(ctx context.Context) error { return a.run(ctx, nil, "apt-get", "clean") }

func (a *apt) installed(ctx context.Context) (versions, sources map[string]string, err error) {
	var out []byte
	if err := a.run(ctx, &out, "dpkg-query", "-W", "-f", `${Package} ${Version} ${source:Package}\n`); err != nil {
		return nil, nil, err
	}
	versions, sources = node.ParseInstalled(out)
	return versions, sources, nil
}

// run runs a tool to its end or the context's. What it says goes to the log,
// or, when out is given, there.
func (a *apt) run(ctx context.Context, out *[]byte, name string, args ...string) error {
	file, err := a.output(out != nil)
	if err != nil {
		return err
	}
	defer file.Close()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "APT_LISTCHANGES_FRONTEND=none", "LC_ALL=C.UTF-8", "TERM=dumb")
	cmd.Stdout, cmd.Stderr = file, file
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if out == nil {
		fmt.Fprintf(file, "\n%s %s %s\n", time.Now().UTC().Format(time.RFC3339), name, strings.Join(args, " "))
	}
	ended, err := a.kids.start(cmd)
	if err != nil {
		return err
	}
	_ = unix.Setpriority(unix.PRIO_PGRP, cmd.Process.Pid, aptNice) // it is only politeness
	if err := awaitGroup(ctx, cmd.Process.Pid, ended); err != nil {
		return fmt.Errorf("%s: %w, see %s", called(name, args), err, file.Name())
	}
	if out == nil {
		return nil
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	*out, err = io.ReadAll(io.LimitReader(file, aptOutputBytes))
	return err
}

// called is a tool and what it was told to do.
func called(name string, args []string) string {
	for _, word := range []string{"update", "upgrade", "install", "clean", "--configure", "--fix-broken"} {
		if slices.Contains(args, word) {
			return name + " " + strings.TrimLeft(word, "-")
		}
	}
	return name
}

// awaitGroup waits for a tool, and ends all of its processes with the context:
// apt finishes the package at which it is when it is asked to end.
func awaitGroup(ctx context.Context, group int, ended <-chan unix.WaitStatus) error {
	select {
	case status := <-ended:
		if status.ExitStatus() != 0 {
			return fmt.Errorf("it ended with status %d", status.ExitStatus())
		}
		return nil
	case <-ctx.Done():
	}
	_ = unix.Kill(-group, unix.SIGTERM)
	select {
	case <-ended:
	case <-time.After(3 * time.Second): // a machine that stops hasn't long
		_ = unix.Kill(-group, unix.SIGKILL)
		<-ended
	}
	return fmt.Errorf("it took too long and was ended: %w", ctx.Err())
}

// output opens the log, begun anew when it is long, or an empty file.
func (a *apt) output(apart bool) (*os.File, error) {
	if apart {
		return os.OpenFile(cmp.Or(a.dir, aptDir)+"/apt.out", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	}
	if info, err := os.Stat(aptLog); err == nil && info.Size() > aptLogBytes {
		if err := os.Rename(aptLog, aptLog+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(aptLog, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}
