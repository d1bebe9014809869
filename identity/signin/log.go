// SPDX-License-Identifier: Apache-2.0

package signin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"

	"bastide.dev/fault"
	"bastide.dev/identity"
	"bastide.dev/store"
)

// The log is written in batches: an attempt waits at most flushEvery in memory.
const (
	logPrefix  = "signinlog/"
	flushEvery = time.Second
	sweepEvery = 10 * time.Minute
	lastFlush  = 5 * time.Second
	queued     = 8192
	batchSize  = 500
	batchBytes = 512 << 10
	sweepAfter = 5000 // entries: a flood mustn't wait for the time
	// pendingMost bounds what waits for a store that doesn't answer.
	pendingMost = 2 * queued
)

// Bounds of what a stranger can make us write.
const (
	maxText     = 256
	maxReason   = 300
	maxPerEntry = 50 // policies
)

// Limits of the log. Each of three kinds has its own: people's successful
// sign-ins, applications', and failures, so that none of them crowds out another.
type Limits struct {
	Age     time.Duration
	Entries int
	Bytes   int
}

func (l Limits) withDefaults() Limits {
	return Limits{cmp.Or(l.Age, 30*24*time.Hour), cmp.Or(l.Entries, 20000), cmp.Or(l.Bytes, 16<<20)}
}

// Entry is one attempt to sign in.
type Entry struct {
	ID           string                 `json:"id"`
	Time         time.Time              `json:"time"`
	Flow         identity.Flow          `json:"flow"`
	Kind         identity.PrincipalKind `json:"kind,omitempty"`
	Principal    string                 `json:"principal,omitempty"`
	Name         string                 `json:"name,omitempty"`
	ClientID     string                 `json:"client,omitempty"`
	ResourceID   string                 `json:"resource,omitempty"`
	Address      string                 `json:"address,omitempty"`
	UserAgent    string                 `json:"userAgent,omitempty"`
	Methods      []string               `json:"methods,omitempty"`
	Credential   string                 `json:"credential,omitempty"`
	Correlation  string                 `json:"correlation,omitempty"`
	Code         int                    `json:"code,omitempty"` // AADSTS number; 0 is success
	Reason       string                 `json:"reason,omitempty"`
	AccessStatus string                 `json:"access"` // success, failure, notApplied
	Policies     []identity.Applied     `json:"policies,omitempty"`
	Count        int                    `json:"count,omitempty"` // applications' sign-ins alike, within one batch
}

// note is what waits in the queue.
type note struct {
	entry Entry
	use   string // key of the credential that was used
}

// Codes that need a word of their own.
const (
	codePending  = 70016 // a device that polls: no attempt yet
	codeInternal = 90033
)

// Record remembers an attempt. It never waits: what the queue can't take is counted and said.
func (s *Service) Record(in identity.SignIn, v identity.Verdict, err error) {
	e := newEntry(in, v, err, s.now())
	if e.Code == codePending {
		return
	}
	n := note{entry: e}
	if e.Code == 0 && e.Principal != "" {
		n.use = useKey(e.Principal, e.Credential)
	}
	select {
	case s.queue <- n:
	default:
		s.lost.Add(1)
	}
}

func newEntry(in identity.SignIn, v identity.Verdict, err error, now time.Time) Entry {
	e := Entry{ID: in.ID, Time: in.Time.UTC(), Flow: in.Flow, Kind: in.Kind, Principal: clean(in.Principal), Name: clean(in.Name),
		ClientID: clean(in.ClientID), ResourceID: clean(in.ResourceID), UserAgent: clean(in.UserAgent), Credential: clean(in.Credential),
		Methods: in.Methods, Correlation: in.Correlation, Policies: applied(v.Policies), AccessStatus: "notApplied"}
	if uuid.Validate(e.ID) != nil {
		e.ID = uuid.NewString()
	}
	if uuid.Validate(e.Correlation) != nil {
		e.Correlation = ""
	}
	if in.Time.IsZero() {
		e.Time = now.UTC()
	}
	if in.Address.IsValid() {
		e.Address = in.Address.Unmap().WithZone("").String()
	}
	for _, p := range e.Policies {
		switch p.Result {
		case "failure":
			e.AccessStatus = "failure"
		case "success":
			if e.AccessStatus == "notApplied" {
				e.AccessStatus = "success"
			}
		}
	}
	if err != nil {
		e.Code, e.Reason = explain(err)
	}
	return e
}

// applied keeps the policies that had a part first, and not too many.
func applied(all []identity.Applied) []identity.Applied {
	idle := func(p identity.Applied) int {
		if p.Result == "notApplied" || p.Result == "reportOnlyNotApplied" {
			return 1
		}
		return 0
	}
	kept := slices.Clone(all)
	slices.SortStableFunc(kept, func(a, b identity.Applied) int { return idle(a) - idle(b) })
	return kept[:min(len(kept), maxPerEntry)]
}

// numbered is how the token service words its refusals.
var numbered = regexp.MustCompile(`^(?:[a-z_]{1,40}: )?AADSTS([0-9]{1,9}): ((?s).*)$`)

// explain finds number and public message of a refusal. What goes wrong inside
// isn't for the log that others read.
func explain(err error) (int, string) {
	text := err.Error()
	var f *fault.Error
	if errors.As(err, &f) {
		text = f.Code + ": " + f.Message
	}
	m := numbered.FindStringSubmatch(text)
	if m == nil {
		return codeInternal, "A transient error has occurred."
	}
	number, parseErr := strconv.Atoi(m[1])
	if parseErr != nil || number == 0 {
		return codeInternal, "A transient error has occurred."
	}
	return number, cleanTo(m[2], maxReason)
}

func clean(text string) string { return cleanTo(text, maxText) }

// cleanTo makes foreign text fit for a log: nothing that moves a cursor, no more than limit runes.
func cleanTo(text string, limit int) string {
	var b strings.Builder
	for _, r := range text {
		if limit--; limit < 0 {
			break
		}
		if !unicode.IsPrint(r) {
			r = '\uFFFD'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// The three kinds of entries.
const (
	kindPeople = "people"
	kindApps   = "apps"
	kindFailed = "failed"
)

func (e *Entry) class() string {
	switch {
	case e.Code != 0:
		return kindFailed
	case e.Kind == identity.UserKind:
		return kindPeople
	}
	return kindApps
}

// Flush writes what was recorded until now.
func (s *Service) Flush(ctx context.Context) error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.take()
	if lost := s.lost.Swap(0); lost > 0 {
		s.log.Warn("sign-ins not recorded: there were too many at once", "count", lost)
	}
	byClass := map[string][]Entry{}
	for _, e := range s.pending {
		byClass[e.class()] = append(byClass[e.class()], e)
	}
	byClass[kindApps] = gather(byClass[kindApps])
	var left []Entry
	var problems []error
	for class, entries := range byClass {
		rest, err := s.writeBatches(ctx, class, entries)
		left, problems = append(left, rest...), append(problems, err)
	}
	s.pending = left
	problems = append(problems, s.writeUses(ctx))
	return errors.Join(problems...)
}

// take empties the queue into pending; s.flushing is held.
func (s *Service) take() {
	for range queued {
		select {
		case n := <-s.queue:
			if len(s.pending) >= pendingMost {
				s.lost.Add(1)
				continue
			}
			s.pending = append(s.pending, n.entry)
			if n.use != "" {
				s.uses[n.use] = n.entry.Time
			}
		default:
			return
		}
	}
}

// gather makes one of applications' sign-ins that are alike: some fetch hundreds of tokens a second.
func gather(entries []Entry) []Entry {
	type alike struct {
		principal, client, resource, address, agent, credential, policies string
		flow                                                              identity.Flow
	}
	at := map[alike]int{}
	var kept []Entry
	for _, e := range entries {
		key := alike{e.Principal, e.ClientID, e.ResourceID, e.Address, e.UserAgent, e.Credential, fmt.Sprint(e.Policies), e.Flow}
		if i, seen := at[key]; seen {
			kept[i].Count = max(kept[i].Count, 1) + max(e.Count, 1)
			continue
		}
		at[key] = len(kept)
		kept = append(kept, e)
	}
	return kept
}

// writeBatches writes entries of one kind and returns those that couldn't be.
func (s *Service) writeBatches(ctx context.Context, class string, entries []Entry) ([]Entry, error) {
	for len(entries) > 0 {
		size, bytes := 0, 2
		var data []json.RawMessage
		for size < min(len(entries), batchSize) {
			one, err := json.Marshal(entries[size])
			if err != nil {
				return nil, fmt.Errorf("encode sign-in: %w", err)
			}
			if size > 0 && bytes+len(one) > batchBytes {
				break
			}
			data, size, bytes = append(data, one), size+1, bytes+len(one)+1
		}
		value, err := json.Marshal(data)
		if err != nil {
			return nil, fmt.Errorf("encode sign-ins: %w", err)
		}
		key := fmt.Sprintf("%s%s/%020d-%d-%s", logPrefix, class, s.now().UnixNano(), size, identity.Random(8))
		if _, err := s.store.Put(ctx, key, value, store.Absent); err != nil {
			return entries, fmt.Errorf("write sign-ins: %w", err)
		}
		entries = entries[size:]
		s.written.Add(int64(size))
	}
	return nil, nil
}

// batch is what a key says of what is under it.
type batch struct {
	class   string
	written time.Time
	count   int
}

func parseKey(key string) (batch, bool) {
	class, rest, ok := strings.Cut(strings.TrimPrefix(key, logPrefix), "/")
	parts := strings.Split(rest, "-")
	if !ok || len(parts) < 3 {
		return batch{}, false
	}
	nanos, err1 := strconv.ParseInt(parts[0], 10, 64)
	count, err2 := strconv.Atoi(parts[1])
	return batch{class, time.Unix(0, nanos), count}, err1 == nil && err2 == nil
}

// Sweep removes what is too old or too much, the oldest first.
func (s *Service) Sweep(ctx context.Context) error {
	s.written.Store(0)
	records, _, err := s.store.List(ctx, logPrefix)
	if err != nil {
		return fmt.Errorf("list sign-ins: %w", err)
	}
	entries, bytes := map[string]int{}, map[string]int{}
	var problems []error
	for _, r := range slices.Backward(records) { // newest first, within each kind
		b, ok := parseKey(r.Key)
		entries[b.class] += b.count
		bytes[b.class] += len(r.Value)
		if ok && entries[b.class] <= s.limits.Entries && bytes[b.class] <= s.limits.Bytes && s.now().Sub(b.written) <= s.limits.Age {
			continue
		}
		if err := s.store.Delete(ctx, r.Key, store.Any); err != nil {
			problems = append(problems, fmt.Errorf("delete %s: %w", r.Key, err))
		}
	}
	return errors.Join(append(problems, s.sweepUses(ctx))...)
}
