// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bastide.dev/controlplane/addons"
)

const seeders = 8

// seed creates the release's own default rights in a new cluster. Where the last
// of them is, all are: either from here, or from the release itself.
func (s *session) seed(ctx context.Context) error {
	if len(s.Policy) == 0 {
		return nil
	}
	last := s.Policy[len(s.Policy)-1]
	resource, err := addons.Resource(last)
	if err != nil {
		return err
	}
	_, err = s.client.Resource(resource).Namespace(last.GetNamespace()).Get(ctx, last.GetName(), metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	work := make(chan *unstructured.Unstructured)
	errs := make([]error, seeders)
	var wait sync.WaitGroup
	for i := range seeders {
		wait.Go(func() {
			for o := range work {
				errs[i] = errors.Join(errs[i], s.create(ctx, o))
			}
		})
	}
	for _, o := range s.Policy[:len(s.Policy)-1] {
		work <- o
	}
	close(work)
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return s.create(ctx, last)
}

// create creates an object unless it is there, and waits for its namespace.
func (s *session) create(ctx context.Context, o *unstructured.Unstructured) error {
	resource, err := addons.Resource(o)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); ; pause(ctx, readyPoll) {
		_, err := s.client.Resource(resource).Namespace(o.GetNamespace()).Create(ctx, o.DeepCopy(), metav1.CreateOptions{})
		if err == nil || apierrors.IsAlreadyExists(err) {
			return nil
		}
		if !apierrors.IsNotFound(err) || ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("create %s: %w", objectKey(o), err)
		}
	}
}
