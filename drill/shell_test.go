// SPDX-License-Identifier: Apache-2.0

package drill

import (
	"context"
	"os/exec"
	"testing"
	"time"
)

func TestShell(t *testing.T) {
	s := &shell{command: func() *exec.Cmd { return exec.Command("sh") }}
	t.Cleanup(s.Close)
	for command, want := range map[string]struct {
		out  string
		code int
	}{
		"echo one; echo two":       {"one\ntwo\n", 0},
		"false":                    {"", 1},
		"printf unfinished":        {"unfinished", 0},
		"(exit 7)":                 {"", 7},
		"echo bad >&2; (exit 255)": {"bad\n", 255},
		"cat":                      {"", 0}, // its input isn't ours
	} {
		out, code, err := s.run(t.Context(), command)
		if err != nil || out != want.out || code != want.code {
			t.Errorf("%s: %q, %d, %v", command, out, code, err)
		}
	}
}

func TestShellOpensAgain(t *testing.T) {
	s := &shell{command: func() *exec.Cmd { return exec.Command("sh") }}
	t.Cleanup(s.Close)
	if _, _, err := s.run(t.Context(), "true"); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if out, _, err := s.run(t.Context(), "echo back"); err != nil || out != "back\n" {
		t.Errorf("%q, %v", out, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := s.run(ctx, "sleep 100"); err == nil {
		t.Error("a command that takes too long is done")
	}
}

func TestWhatAShellGot(t *testing.T) {
	for out, want := range map[string]struct {
		code   int
		worked bool
		got    string
	}{
		"hostname: web\n": {0, true, "an answer, hostname: web"},
		"<html>\n":        {0, false, "an answer, but none of ours: <html>"},
		"":                {124, false, "no answer"},
		"wget: can't connect to remote host (10.0.0.1): Connection refused": {1, false, "connection refused"},
		"Segmentation fault": {139, false, "Segmentation fault"},
		"wget: bad address":  {1, false, "wget: bad address"},
	} {
		if r := fromShell(out, want.code); r.Worked != want.worked || r.Got != want.got {
			t.Errorf("%q: %+v", out, r)
		}
	}
}
