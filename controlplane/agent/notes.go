// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// noteAge is how old a note may be to be told still: events don't last longer.
const noteAge = time.Hour

// noted asks for the events of the spec's notes that this session hasn't told.
func (s *session) noted() {
	spec := s.current()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range spec.Nodes {
		if n := &spec.Nodes[i]; n.Note != nil && !s.notes[n.Name].Equal(n.Note.At) && time.Since(n.Note.At) < noteAge {
			s.queue.Add(keyNote + n.Name)
		}
	}
}

// tellNote writes a node's note as an event. Its name follows from the note: it
// is written once, by whichever session comes first.
func (s *session) tellNote(ctx context.Context, name string) error {
	n := find(s.current(), name)
	if n == nil || n.Note == nil {
		return nil
	}
	kind := corev1.EventTypeNormal
	if n.Note.Warning {
		kind = corev1.EventTypeWarning
	}
	// Kubelets' events name a node by its name in place of its UID: so these are beside them.
	about := corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: name, UID: types.UID(name)}
	event := newEvent(about, metav1.NamespaceDefault, kind, n.Note.Reason, n.Note.At.UTC().Format(time.RFC3339Nano), n.Note.Message)
	event.FirstTimestamp, event.LastTimestamp = metav1.NewTime(n.Note.At), metav1.NewTime(n.Note.At)
	if err := s.createEvent(ctx, event); err != nil {
		return err
	}
	s.mu.Lock()
	s.notes[name] = n.Note.At
	s.mu.Unlock()
	return nil
}
