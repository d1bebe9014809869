// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"bastide.dev/fault"
)

// Target is a registry as its client sees it.
type Target struct {
	Host      string // registry.<domain>, with a port when it isn't 443
	Transport http.RoundTripper
	// Username and Password, or Token (an access token of the instance), sign in.
	Username, Password, Token string
}

func (t Target) options(ctx context.Context) []remote.Option {
	options := []remote.Option{remote.WithContext(ctx), remote.WithTransport(t.Transport), remote.WithUserAgent("bastide")}
	if t.Transport == nil {
		options[1] = remote.WithTransport(remote.DefaultTransport)
	}
	switch {
	case t.Token != "": // the registry takes it as the password of a name that stands for tokens
		options = append(options, remote.WithAuth(&authn.Basic{Username: tokenUser, Password: t.Token}))
	case t.Username != "":
		options = append(options, remote.WithAuth(&authn.Basic{Username: t.Username, Password: t.Password}))
	}
	return options
}

const tokenUser = "00000000-0000-0000-0000-000000000000"

// LoadOptions say what to load.
type LoadOptions struct {
	File string // a docker archive, an OCI layout as a folder or a tar, gzipped or not
	// Ref names the image in the registry, "web:1". Empty: the names in the file.
	Ref string
	// Progress, when set, is told how many bytes of how many are there.
	Progress func(ref string, done, total int64)
}

// Loaded is an image that is in the registry now.
type Loaded struct {
	Ref    string `json:"ref"`
	Digest string `json:"digest"`
}

// Load pushes the images of a file into the registry.
func Load(ctx context.Context, target Target, options LoadOptions) ([]Loaded, error) {
	file, err := openFile(options.File)
	if err != nil {
		return nil, err
	}
	defer file.close()
	if options.Ref != "" && len(file.images) > 1 {
		return nil, badFile(options.File, "it holds %d images, so that they can't all be named %q: load it without a name", len(file.images), options.Ref)
	}
	var loaded []Loaded
	for _, image := range file.images {
		names := image.names
		if options.Ref != "" {
			names = []string{options.Ref}
		}
		if len(names) == 0 {
			return nil, badFile(options.File, "its image has no name: give one, such as web:1")
		}
		for _, n := range names {
			done, err := push(ctx, target, n, image, options.Progress)
			if err != nil {
				return loaded, err
			}
			loaded = append(loaded, done)
		}
	}
	return loaded, nil
}

// repositoryName is the distribution specification's; the library lets "../x" through.
var repositoryName = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)

// reference puts a name under the registry's host, in place of the host it had.
func (t Target) reference(text string) (name.Tag, error) {
	parsed, err := name.NewTag(text, name.WithDefaultRegistry(t.Host))
	if err != nil {
		return name.Tag{}, fault.New(fault.Invalid, "InvalidImageName", "%q is no name of an image: it looks like web:1 or team/web:1, in lower case.", text).Because(err)
	}
	if !repositoryName.MatchString(parsed.RepositoryStr()) {
		return name.Tag{}, fault.New(fault.Invalid, "InvalidImageName", "%q is no name of an image.", text)
	}
	moved, err := name.NewTag(t.Host + "/" + parsed.RepositoryStr() + ":" + parsed.TagStr())
	if err != nil {
		return name.Tag{}, fault.New(fault.Invalid, "InvalidImageName", "%q is no name of an image.", text).Because(err)
	}
	return moved, nil
}

func push(ctx context.Context, target Target, text string, image fileImage, progress func(string, int64, int64)) (Loaded, error) {
	ref, err := target.reference(text)
	if err != nil {
		return Loaded{}, err
	}
	options := target.options(ctx)
	finished := make(chan struct{})
	if progress != nil {
		updates := make(chan v1.Update, 16)
		options = append(options, remote.WithProgress(updates))
		go func() { // ends when the push closes updates; push waits for it
			defer close(finished)
			for u := range updates {
				if u.Error == nil {
					progress(ref.Name(), u.Complete, u.Total)
				}
			}
		}()
	} else {
		close(finished)
	}
	digest, err := image.write(ref, options)
	<-finished
	if err != nil {
		return Loaded{}, explain(ref.Name(), err)
	}
	return Loaded{Ref: ref.Name(), Digest: digest}, nil
}

// explain turns a registry's refusal into a fault for the person who asked.
func explain(what string, err error) error {
	var refused *transport.Error
	if !errors.As(err, &refused) {
		return fmt.Errorf("%s: %w", what, err)
	}
	switch {
	case refused.StatusCode == http.StatusUnauthorized || refused.StatusCode == http.StatusForbidden:
		return fault.New(fault.Forbidden, "Denied", "The registry doesn't let you change %s.", what).Because(err)
	case slices.ContainsFunc(refused.Errors, func(d transport.Diagnostic) bool { return d.Code == transport.DigestInvalidErrorCode }):
		return fault.New(fault.Invalid, "InvalidImage", "The image is damaged: a part of %s isn't what its digest says.", what).Because(err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Repository is a name in the registry and its tags.
type Repository struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

// List reads all repositories and their tags.
func List(ctx context.Context, target Target) ([]Repository, error) {
	host, err := name.NewRegistry(target.Host)
	if err != nil {
		return nil, fmt.Errorf("registry %q: %w", target.Host, err)
	}
	options := target.options(ctx)
	names, err := remote.Catalog(ctx, host, options...)
	if err != nil {
		return nil, explain(target.Host, err)
	}
	found := []Repository{}
	for _, n := range names {
		tags, err := remote.List(host.Repo(n), options...)
		var refused *transport.Error
		if errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound {
			continue // its last tag was deleted
		}
		if err != nil {
			return nil, explain(n, err)
		}
		slices.Sort(tags)
		found = append(found, Repository{Name: n, Tags: tags})
	}
	return found, nil
}

func badFile(path, format string, args ...any) error {
	if _, err := os.Stat(path); err != nil {
		return fault.New(fault.Invalid, "InvalidImageFile", "%s can't be read.", path).Because(err)
	}
	return fault.New(fault.Invalid, "InvalidImageFile", "%s can't be loaded: %s.", path, fmt.Sprintf(format, args...))
}
