// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	eventBytes  = 1024 // the API's bound on an event's message
	eventSource = "bastide"
)

// say writes an event on a node that is left, once a Leave and key. Its name
// follows from both, so that another process, or session, doesn't say it again.
// Nothing depends on it: what fails is only logged.
func (d *drainer) say(ctx context.Context, kind, reason, key, message string) {
	key = d.leave.Since.UTC().Format(time.RFC3339Nano) + " " + key
	if !d.leaves.first(d.node.Name, key) {
		return
	}
	object := corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: d.node.Name, UID: d.node.UID}
	event := newEvent(object, metav1.NamespaceDefault, kind, reason, key, message)
	if _, err := d.client.CoreV1().Events(event.Namespace).Create(ctx, event, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		d.Logger.Debug("event not written", "node", d.node.Name, "reason", reason, "error", err)
	}
}

func newEvent(object corev1.ObjectReference, namespace, kind, reason, key, message string) *corev1.Event {
	sum := sha256.Sum256([]byte(reason + "\x00" + key + "\x00" + string(object.UID)))
	now := metav1.Now()
	return &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s.%x", object.Name, sum[:8])},
		InvolvedObject: object, Type: kind, Reason: reason, Message: strings.ToValidUTF8(message[:min(len(message), eventBytes)], ""), Source: corev1.EventSource{Component: eventSource},
		ReportingController: eventSource, ReportingInstance: eventSource, Action: reason, FirstTimestamp: now, LastTimestamp: now, Count: 1}
}
