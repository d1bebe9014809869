// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"bastide.dev/controlplane"
)

const (
	surveyEvery    = time.Minute
	countEvery     = 10                // surveys: an API server's metrics are long
	surveyTime     = 30 * time.Second  // for all of one
	auditAtOnce    = 256 << 20         // bytes of the audit log in one survey
	auditLine      = 1 << 20           // what is longer is left out
	metricsAtMost  = 64 << 20          // bytes
	deprecatedFile = "deprecated.json" // root's
)

// survey is what is known of the uses of deprecated APIs, on disk.
type survey struct {
	Uses []controlplane.DeprecatedUse `json:"uses,omitempty"`
	// Inode and Offset are up to where the audit log was read.
	Inode  uint64 `json:"inode,omitempty"`
	Offset int64  `json:"offset,omitempty"`
}

// surveys looks for uses of deprecated APIs now and then until ctx ends.
func (p *Plane) surveys(ctx context.Context) {
	ticker := time.NewTicker(surveyEvery)
	defer ticker.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, in := range p.instances() {
			p.surveyOne(ctx, in, n%countEvery == 0)
		}
	}
}

func (p *Plane) surveyOne(ctx context.Context, in *instance, count bool) {
	spec, known := in.current()
	if !known || spec.Stopped || ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, surveyTime)
	defer cancel()
	if err := p.survey(ctx, in, spec, count); err != nil && ctx.Err() == nil {
		p.Logger.Warn("deprecated APIs not looked for", "controlplane", in.id, "error", err)
	}
}

// survey reads what came to the audit log and, if asked, what the API server
// counted: that has what the audit log leaves out, but neither times nor names.
func (p *Plane) survey(ctx context.Context, in *instance, spec controlplane.Spec, count bool) error {
	in.surveying.Lock()
	defer in.surveying.Unlock()
	before := p.readSurvey(in.id)
	s := before
	now := time.Now().UTC()
	err := readAudit(p.dir(in.id, auditDir, "audit.log"), &s, func(u controlplane.DeprecatedUse) { s.Uses = controlplane.AddDeprecated(s.Uses, u, now) })
	if count {
		counts, failed := p.countDeprecated(ctx, spec, in.slotInCharge())
		err = errors.Join(err, failed)
		s.Uses = in.grown(s.Uses, counts, now)
	}
	if s.Inode == before.Inode && s.Offset == before.Offset && len(s.Uses) == len(before.Uses) && !count {
		return err
	}
	data, failed := json.Marshal(s)
	if failed == nil {
		failed = writeFile(p.dir(in.id, deprecatedFile), data, 0)
	}
	in.mu.Lock()
	in.deprecated = s.Uses
	in.mu.Unlock()
	if len(s.Uses) > 0 {
		p.changes.add(in.id)
	}
	return errors.Join(err, failed)
}

func (p *Plane) readSurvey(id string) survey {
	data, err := os.ReadFile(p.dir(id, deprecatedFile))
	if err != nil {
		return survey{}
	}
	var s survey
	if json.Unmarshal(data, &s) != nil {
		return survey{}
	}
	return s
}

// readAudit reads on where s says. The file and its directory are the control
// plane's own: what is no plain file isn't opened, and nothing is waited for.
func readAudit(path string, s *survey, found func(controlplane.DeprecatedUse)) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open audit log: %w", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("open audit log: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("the audit log is no plain file")
	}
	if st.Ino != s.Inode || st.Size < s.Offset {
		s.Inode, s.Offset = st.Ino, 0 // it was begun anew
	}
	s.Offset = max(s.Offset, st.Size-auditAtOnce)
	if _, err := f.Seek(s.Offset, io.SeekStart); err != nil {
		return fmt.Errorf("read audit log: %w", err)
	}
	lines := bufio.NewReaderSize(io.LimitReader(f, auditAtOnce), 64<<10)
	for {
		line, size, err := readLine(lines)
		if err != nil {
			return ignoreEnd(err) // a line that isn't whole is read the next time
		}
		s.Offset += size
		if bytes.Contains(line, []byte(`"k8s.io/removed-release"`)) {
			if use, ok := controlplane.ReadDeprecated(line); ok {
				found(use)
			}
		}
	}
}

func ignoreEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return fmt.Errorf("read audit log: %w", err)
}

// readLine reads to the end of a line and returns its beginning and its length.
func readLine(r *bufio.Reader) (line []byte, size int64, err error) {
	for {
		part, err := r.ReadSlice('\n')
		size += int64(len(part))
		if len(line) < auditLine {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, size, err
		}
	}
}

func (p *Plane) countDeprecated(ctx context.Context, spec controlplane.Spec, slot controlplane.Slot) ([]controlplane.DeprecatedCount, error) {
	api, err := dialSlot(spec, p.Netns(spec.Namespace), slot)
	if err != nil {
		return nil, err
	}
	defer api.hangUp()
	body, err := api.api.Get().AbsPath("/metrics").Stream(ctx)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	defer body.Close()
	var counts controlplane.DeprecatedCounts
	lines := bufio.NewScanner(io.LimitReader(body, metricsAtMost))
	lines.Buffer(nil, auditLine)
	for lines.Scan() {
		counts.Line(lines.Text())
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	return counts.All(), nil
}

// grown notes the uses whose count is another than the last time. Of those that
// are known already nothing is said when there is no last time.
func (in *instance) grown(uses []controlplane.DeprecatedUse, counts []controlplane.DeprecatedCount, now time.Time) []controlplane.DeprecatedUse {
	known := map[[4]string]bool{}
	for _, u := range uses {
		known[[4]string{u.Group, u.Version, u.Resource, u.Removed}] = true
	}
	for _, c := range counts {
		key := [4]string{c.Group, c.Version, c.Resource, c.Removed}
		last, counted := in.counts[key]
		if in.counts == nil {
			in.counts = map[[4]string]float64{}
		}
		in.counts[key] = c.Requests
		if counted && last == c.Requests || !counted && known[key] {
			continue
		}
		c.Last = now
		uses = controlplane.AddDeprecated(uses, c.DeprecatedUse, now)
	}
	return uses
}
