// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// fetch reads an object from the archive onto the shelf, or learns that what is
// there still holds.
func (m *Mirror) fetch(name string, have record) error {
	ctx, cancel := context.WithTimeout(context.Background(), fetchLimit)
	defer cancel()
	select {
	case m.turns <- struct{}{}:
		defer func() { <-m.turns }()
	case <-ctx.Done():
		return ctx.Err()
	}
	from := *m.upstream
	from.Path += "/" + name
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "bastide")
	request.Header.Set("Accept-Encoding", "identity") // as it is signed
	if have.Tag != "" {
		request.Header.Set("If-None-Match", have.Tag)
	}
	if have.Stamp != "" {
		request.Header.Set("If-Modified-Since", have.Stamp)
	}
	answer, err := m.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	switch {
	case answer.StatusCode == http.StatusNotModified && have.Digest != "":
		have.Checked = m.Now()
		return m.shelf.confirm(name, have)
	case answer.StatusCode == http.StatusNotFound, answer.StatusCode == http.StatusGone:
		return errNone
	case answer.StatusCode != http.StatusOK:
		return fmt.Errorf("the archive answers %s", answer.Status)
	case answer.ContentLength > maxObject:
		return fmt.Errorf("it has %d bytes, more than %d", answer.ContentLength, maxObject)
	}
	now := m.Now()
	got := record{Tag: answer.Header.Get("ETag"), Stamp: answer.Header.Get("Last-Modified"), Checked: now, Modified: now}
	if at, err := http.ParseTime(got.Stamp); err == nil && at.Before(now) {
		got.Modified = at
	}
	return m.shelf.put(name, got, have, &exactly{r: answer.Body, want: answer.ContentLength})
}

// exactly fails when a stream is shorter than was said, or longer than may be.
type exactly struct {
	r         io.Reader
	got, want int64 // want -1: wasn't said
}

func (e *exactly) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.got += int64(n)
	switch {
	case e.got > maxObject:
		return n, fmt.Errorf("it has more than %d bytes", maxObject)
	case errors.Is(err, io.EOF) && e.want >= 0 && e.got != e.want:
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// record is what is known of an object that is kept.
type record struct {
	Name     string    `json:"name"`
	Size     int64     `json:"size"`
	Digest   string    `json:"digest"` // SHA-256
	Tag      string    `json:"tag,omitempty"`
	Stamp    string    `json:"stamp,omitempty"` // Last-Modified, as it was said
	Modified time.Time `json:"modified"`
	Checked  time.Time `json:"checked"`
}
