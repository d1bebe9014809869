// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"bastide.dev/node"
)

// life is a node from its boot to its end: its config may change meanwhile.
type life struct {
	kids     *reaper
	log      *slog.Logger
	teller   *teller
	services *services
	patcher  *patcher

	boot    node.Config       // as the node booted
	config  node.Config       // in effect
	digests map[string]string // of the files that it wrote, by path
	nft     string
}

// run sets the machine up and runs the node until ctx ends.
func run(ctx context.Context, kids *reaper, log *slog.Logger) error {
	changed := notified(ctx, log, node.ConfigPath)
	config, digest, err := readConfig()
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	if err := setUp(ctx, config, kids); err != nil {
		return fmt.Errorf("node: set up: %w", err)
	}
	t := newTeller(log)
	l := &life{kids: kids, log: log, teller: t, services: newServices(kids, log, t), patcher: newPatcher(kids, log, t),
		boot: config, digests: map[string]string{}, nft: node.Masquerade(config)}
	if err := l.apply(ctx, config, digest); err != nil {
		return fmt.Errorf("node: %w", err)
	}
	l.follow(ctx, changed)
	l.services.wait()
	l.patcher.wait()
	return nil
}

// follow takes on each change of the config until ctx ends. What fails is tried again.
func (l *life) follow(ctx context.Context, changed <-chan struct{}) {
	due := notified(ctx, l.log, sentinel, sentinelPackages)
	retry := time.NewTimer(0)
	defer retry.Stop()
	<-retry.C
	for pause := firstPause; ; {
		select {
		case <-ctx.Done():
			return
		case <-due:
			l.teller.tellReboot()
			continue
		case <-changed:
			pause = firstPause
		case <-retry.C:
		}
		if err := l.reload(ctx); err != nil {
			l.log.Warn("the new config isn't in effect", "error", err)
			l.teller.tell(func(s *node.Status) { s.Error = err.Error() })
			retry.Reset(pause)
			pause = min(2*pause, lastPause)
		}
	}
}

func readConfig() (node.Config, string, error) {
	var config node.Config
	data, err := os.ReadFile(node.ConfigPath)
	if err != nil {
		return config, "", err
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return config, "", fmt.Errorf("%s: %w", node.ConfigPath, err)
	}
	return config, node.Digest(data), nil
}

func (l *life) reload(ctx context.Context) error {
	config, digest, err := readConfig()
	if err != nil {
		return err
	}
	config = config.Live(l.boot)
	if config.Authority != l.config.Authority {
		// The old certificates are given up only for who would give new ones.
		server := newProbe(config)
		server.joins = true
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if !server.ask(limited) {
			return errors.New("the API server doesn't know the bootstrap token with which kubelet should get certificates of its new CA")
		}
	}
	return l.apply(ctx, config, digest)
}

// apply brings the node to config: its files, its rules, and those of its
// services that are told something else now.
func (l *life) apply(ctx context.Context, config node.Config, digest string) error {
	shown, err := fitted(config)
	if err != nil {
		return err
	}
	files, err := node.Files(shown)
	if err != nil {
		return err
	}
	digests, err := l.write(files)
	if err != nil {
		return err
	}
	if rules := node.Masquerade(config); rules != l.nft && rules != "" {
		if err := nft(l.kids, rules); err != nil {
			return fmt.Errorf("masquerading: %w", err)
		}
		l.nft = rules
	}
	l.config = config
	l.services.apply(ctx, config, digests)
	l.patcher.apply(ctx, config)
	l.teller.tell(func(s *node.Status) { s.Config, s.Error = digest, "" })
	return nil
}

// write writes the files that changed, and removes those of an earlier config
// that this one hasn't.
func (l *life) write(files []node.File) (map[string]string, error) {
	digests := map[string]string{}
	for _, f := range files {
		sum := sha256.Sum256(f.Data)
		digests[f.Path] = hex.EncodeToString(sum[:])
		if digests[f.Path] == l.digests[f.Path] {
			continue
		}
		if err := writeFile(f); err != nil {
			return nil, err
		}
	}
	for path := range l.digests {
		if digests[path] == "" {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
	}
	l.digests = digests
	return digests, nil
}

// authorityPath says which CA the certificates in kubelet's directory are of.
const authorityPath = "/var/lib/bastide/authority"

// keepAuthority puts kubelet's certificates aside when they are of another CA
// than authority. Without them kubelet joins again.
func keepAuthority(authority string) error {
	have, err := os.ReadFile(authorityPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kubelet's CA: %w", err)
	}
	if string(have) == authority {
		return nil
	}
	const pki = "/var/lib/kubelet/pki"
	if err := os.RemoveAll(pki + ".old"); err != nil {
		return fmt.Errorf("kubelet's certificates: %w", err)
	}
	for _, path := range []string{pki, node.KubeconfigPath} {
		if err := os.Rename(path, path+".old"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("kubelet's certificates: %w", err)
		}
	}
	// Last: whoever is interrupted before does it all again.
	if err := os.MkdirAll(filepath.Dir(authorityPath), 0o755); err != nil {
		return fmt.Errorf("kubelet's CA: %w", err)
	}
	return writeFile(node.File{Path: authorityPath, Mode: 0o600, Data: []byte(authority)})
}
